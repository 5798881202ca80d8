"""``SSE.render``: a template of the application's own, as an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp_jinja2
import jinja2
import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    ConfigurationError,
    ServerSentEvent,
    SharedRun,
    SSERouteTableDef,
    get_sse,
    setup,
)

from .helpers import Served

Serve = Callable[[web.Application], Awaitable[Served]]

TEMPLATES = {
    "row.html": "<li>{{ text }}</li>\n<hr>",
    "url.html": "{{ sse_url('urls') }}",
    "who.html": "{{ user }} {{ request.path }} {{ text }}",
    "plain.html": "{{ text }}",
    "calls.html": "{{ call() }}",
    "broken.html": "{{ text | nothing }}",
}
ROW = "<li>a &amp; b</li>\n<hr>"


async def user_processor(request: web.Request) -> dict[str, Any]:
    """Return what every template is given."""
    return {"user": "ann", "text": "of the processor"}


def app_with(
    *handlers: Callable[..., Any], jinja: bool = True, **options: Any
) -> web.Application:
    """Return an application with a route for each handler, and templates."""
    app = web.Application()
    if jinja:
        options.setdefault("loader", jinja2.DictLoader(TEMPLATES))
        aiohttp_jinja2.setup(app, **options)
    table = SSERouteTableDef()
    for handler in handlers:
        shared = "run" in handler.__annotations__
        table.sse_route(f"/{handler.__name__}", shared=shared)(handler)
    setup(app, table)
    return app


async def data_of(served: Served, path: str) -> list[tuple[str, str]]:
    """Return the name and the data of each event at *path*."""
    async with served.stream(path) as stream:
        return [(e.type, e.data) for e in await stream.collect(1)]


async def rows(request: web.Request) -> AsyncIterator[ServerSentEvent]:
    """Yield a rendered event."""
    sse = get_sse(request)
    yield sse.render("row.html", request, {"text": "a & b"}, event="row")


async def shared_rows(run: SharedRun) -> AsyncIterator[ServerSentEvent]:
    """Yield a rendered event, to all."""
    sse = get_sse(run.app)
    yield sse.render("row.html", run.app, {"text": "a & b"}, event="row")


async def urls(request: web.Request) -> AsyncIterator[ServerSentEvent]:
    """Yield what the template asks the package for."""
    yield get_sse(request).render("url.html", request, {})


async def who(request: web.Request) -> AsyncIterator[ServerSentEvent]:
    """Yield what the context processors have given, and what goes before it."""
    sse = get_sse(request)
    yield sse.render("who.html", request, {"text": "of the handler"})


@pytest.mark.parametrize("path", ["/rows", "/shared_rows"])
async def test_an_event_of_a_template(serve: Serve, path: str) -> None:
    """A template of the application's is an event's data, escaped, line by line."""
    served = await serve(app_with(rows, shared_rows))
    assert [("row", ROW)] == await data_of(served, path)


async def test_the_functions_of_the_package(serve: Serve) -> None:
    """A fragment has ``sse_url``, as a page has."""
    served = await serve(app_with(urls))
    assert [("message", "/urls")] == await data_of(served, "/urls")


# aiohttp-jinja2 keeps what they gave under a key of the older kind.
@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
async def test_context_processors(serve: Serve) -> None:
    """With a request it has what context processors gave; the handler's goes first."""
    processors = (aiohttp_jinja2.request_processor, user_processor)
    served = await serve(app_with(who, context_processors=processors))
    assert [("message", "ann /who of the handler")] == await data_of(served, "/who")


async def test_the_environment_is_the_applications(serve: Serve) -> None:
    """Filters, delimiters and autoescape are those of the environment."""
    app = app_with(
        rows,
        autoescape=False,
        filters={"shout": str.upper},
        variable_start_string="[[",
        variable_end_string="]]",
        loader=jinja2.DictLoader({"row.html": "[[ text|shout ]]"}),
    )
    assert [("row", "A & B")] == await data_of(await serve(app), "/rows")


@pytest.mark.parametrize("own", [False, True])
async def test_a_sub_application(serve: Serve, own: bool) -> None:
    """A sub-application has an environment of its own, or else the root's."""
    app = app_with(rows)
    sub = web.Application()
    if own:
        loader = jinja2.DictLoader({"row.html": "of the sub-application"})
        aiohttp_jinja2.setup(sub, loader=loader)
    table = SSERouteTableDef()
    table.sse_route("/rows", name="sub")(rows)

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[ServerSentEvent]:
        yield get_sse(app).render("row.html", run.app, {"text": "a & b"}, event="row")

    sub.add_routes(table)
    app.add_subapp("/sub", sub)
    served = await serve(app)
    expected = [("row", "of the sub-application" if own else ROW)]
    assert expected == await data_of(served, "/sub/rows")
    assert expected == await data_of(served, "/sub/shared")


async def test_an_environment_under_another_key() -> None:
    """One that was set up under a key of the user's is found too."""
    key = web.AppKey("templates", jinja2.Environment)
    app = app_with(rows, app_key=key)
    event = get_sse(app).render("row.html", app, {"text": "a & b"}, event="row")
    assert ServerSentEvent(ROW, event="row") == event


async def test_from_anywhere() -> None:
    """With the application alone it is rendered anywhere, to be published."""
    app = app_with(rows)
    event = get_sse(app).render("plain.html", app, {"text": "x"})
    assert ServerSentEvent("x") == event


async def test_an_async_environment() -> None:
    """With ``enable_async`` a template that awaits nothing is rendered at once."""
    app = app_with(rows, enable_async=True)
    sse = get_sse(app)
    context = {"text": "a & b"}
    event = ServerSentEvent(ROW, event="row")
    assert event == sse.render("row.html", app, context, event="row")
    assert event == await sse.render_async("row.html", app, context, event="row")


async def test_a_template_that_awaits() -> None:
    """One that awaits is for `render_async`, and `render` says so."""
    app = app_with(rows, enable_async=True)
    sse = get_sse(app)

    async def call() -> str:
        await asyncio.sleep(0)
        return "called"

    event = await sse.render_async("calls.html", app, {"call": call}, event="x")
    assert ServerSentEvent("called", event="x") == event
    with pytest.raises(ConfigurationError, match=r"calls\.html.*render_async"):
        sse.render("calls.html", app, {"call": call})


async def test_render_async_of_a_plain_environment() -> None:
    """Without ``enable_async`` the two are the same."""
    app = app_with(rows)
    sse = get_sse(app)
    event = await sse.render_async("plain.html", app, {"text": "x"})
    assert ServerSentEvent("x") == event


async def test_without_an_environment() -> None:
    """Where aiohttp-jinja2 was not set up, the error names the call that does it."""
    app = app_with(rows, jinja=False)
    with pytest.raises(ConfigurationError, match=r"row\.html.*aiohttp_jinja2\.setup\("):
        get_sse(app).render("row.html", app, {})


async def test_errors_of_templates() -> None:
    """A template that is not there, or is wrong, is Jinja's own error."""
    app = app_with(rows)
    sse = get_sse(app)
    with pytest.raises(jinja2.TemplateNotFound, match="nowhere"):
        sse.render("nowhere.html", app, {})
    with pytest.raises(jinja2.TemplateAssertionError, match="nothing"):
        sse.render("broken.html", app, {"text": "x"})


async def test_a_name_that_is_reserved() -> None:
    """The event's name is checked as any event's is."""
    app = app_with(rows)
    with pytest.raises(ValueError, match="reserved"):
        get_sse(app).render("plain.html", app, {"text": "x"}, event="sse-own")
