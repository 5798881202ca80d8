"""HTML as events: a template of the application's own, rendered as aiohttp-jinja2 does.

Law: the environment, its filters and the context processors are the application's.
Nothing is added to a context but what they have given.
"""

from __future__ import annotations

__all__ = ("rendered", "rendered_async")

from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

import jinja2
from aiohttp import web
from aiohttp_jinja2 import APP_KEY, REQUEST_CONTEXT_KEY

from ..errors import ConfigurationError

Place = web.BaseRequest | web.Application
"""What knows an application: a request, or itself."""


def rendered(
    name: str, place: Place, root: web.Application, context: Mapping[str, Any]
) -> str:
    """Return the template *name* with *context*.

    Args:
        name: The template's.
        place: Whose environment it is of; a request has its context processors too.
        root: The root application, whose environment it is where *place* has none.
        context: What the template is given.

    Raises:
        ConfigurationError: there is no environment, or the template has to wait.
        jinja2.TemplateError: the template is not there, or is wrong.
    """
    template, context = _prepared(name, place, root, context)
    if not template.environment.is_async:
        return template.render(context)
    return _without_waiting(name, template.render_async(context))


async def rendered_async(
    name: str, place: Place, root: web.Application, context: Mapping[str, Any]
) -> str:
    """Return the template *name* with *context*; see `rendered`."""
    template, context = _prepared(name, place, root, context)
    if template.environment.is_async:
        return await template.render_async(context)
    return template.render(context)


def _prepared(
    name: str, place: Place, root: web.Application, context: Mapping[str, Any]
) -> tuple[jinja2.Template, dict[str, Any]]:
    template = _environment(name, place, root).get_template(name)
    given: Mapping[str, Any] = {}
    if isinstance(place, web.BaseRequest):
        given = place.get(REQUEST_CONTEXT_KEY) or {}
    return template, {**given, **context}


def _environment(name: str, place: Place, root: web.Application) -> jinja2.Environment:
    apps = [*_apps_of(place), root]
    for app in apps:
        if APP_KEY in app:
            return app[APP_KEY]
    for app in apps:
        # One that was set up under a key of the user's.
        for key in app:
            if isinstance(app[key], jinja2.Environment):
                found: jinja2.Environment = app[key]
                return found
    raise ConfigurationError(
        f"render({name!r}): the application has no Jinja environment: call "
        "aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader('templates')) "
        "before it starts"
    )


def _apps_of(place: Place) -> Iterator[web.Application]:
    """Yield the applications that *place* is in, the innermost first."""
    if isinstance(place, web.Application):
        yield place
    elif isinstance(place, web.Request):
        yield from reversed(place.match_info.apps)


def _without_waiting(name: str, rendering: Coroutine[Any, Any, str]) -> str:
    """Return what *rendering* comes to, which has nothing to wait for."""
    try:
        rendering.send(None)
    except StopIteration as end:
        text: str = end.value
        return text
    finally:
        rendering.close()
    raise ConfigurationError(
        f"render({name!r}): the template awaits something: use "
        "await sse.render_async(...)"
    )
