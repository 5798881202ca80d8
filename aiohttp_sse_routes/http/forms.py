"""Which form a handler has, and which options mean something for it.

Law: every pair of a form and an option that do not go together is refused here, with
the reason and the fix; what a value may be by itself is `settings`' to say.
"""

from __future__ import annotations

__all__ = ("MEANINGLESS", "check_options", "form_of")

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal

from ..callables import function_of, takes_one
from ..errors import ConfigurationError
from ..naming import classes_with_two_names
from ..settings import Form, RouteSettings
from .handler import declared

_OF_A_STORE: Final = "what channels hold is bounded by the store"

MEANINGLESS: Final[dict[Form | Literal["channels"], dict[str, str]]] = {
    "generator": {
        "history": "a private run has no events from before its client",
        "on_slow": "a private run is paused by its client, never overtaken",
        "share": "a private run is one tab's alone",
    },
    "coroutine": {
        "history": "a private run has no events from before its client, and channels "
        "have theirs by Channels(..., history=...)",
    },
    "channels": {
        "history": "channels have theirs by Channels(..., history=...)",
        "open_timeout": "a coroutine is waited for as long as it takes",
        "replay": _OF_A_STORE,
        "replay_bytes": _OF_A_STORE,
        "resume": "no run waits for its client, who resumes from the store",
    },
    "shared": {"owner": "a shared run belongs to nobody"},
}
"""What each form cannot use, with the reason; and what a coroutine function cannot that
is annotated to return channels."""


def form_of(handler: Any, settings: RouteSettings, where: str) -> Form:
    """Return what *handler* is.

    Raises:
        ConfigurationError: it is nothing that can be a route, or takes no argument.
    """
    call = function_of(handler)
    if inspect.isclass(handler) or call is None:
        raise ConfigurationError(
            f"{where}: {handler!r} is not a function; for a method of an object use "
            "SSERouteDef(path, object.method)"
        )
    form = _form_of(call, settings, where)
    if not takes_one(handler):
        what = "the SharedRun" if form == "shared" else "the request"
        raise ConfigurationError(
            f"{where}: it must take one argument, {what}; for a method use "
            "SSERouteDef(path, object.method)"
        )
    return form


def _form_of(call: Any, settings: RouteSettings, where: str) -> Form:
    if inspect.isasyncgenfunction(call):
        return "shared" if settings.shared else "generator"
    if inspect.iscoroutinefunction(call):
        if settings.shared:
            raise ConfigurationError(
                f"{where}: shared=True needs an async generator function, and this is "
                "a coroutine function: use yield in it, or leave shared out"
            )
        return "coroutine"
    if inspect.isgeneratorfunction(call):
        raise ConfigurationError(
            f"{where}: this is a sync generator function, which would block the "
            "server: write async def"
        )
    raise ConfigurationError(
        f"{where}: this is a plain function: write async def with yield, or async "
        "def that returns Channels or an async iterator"
    )


def check_options(
    handler: Callable[..., Any],
    form: Form,
    settings: RouteSettings,
    given: frozenset[str],
    where: str,
) -> None:
    """Check that the options of a route go with its handler.

    Args:
        handler: The user's.
        form: What it is.
        settings: The route's options.
        given: Those that the route itself has set.
        where: What an error begins with.

    Raises:
        ConfigurationError: one of them does not.
    """
    says = (declared(handler) if form == "coroutine" else None) or form
    for option, reason in MEANINGLESS[says].items():
        if option in given:
            raise ConfigurationError(
                f"{where}: {option}= means nothing here, {reason}: leave it out"
            )
    _check_form(form, settings, where)


def _check_form(form: Form, settings: RouteSettings, where: str) -> None:
    if settings.share and "GET" not in settings.methods:
        raise ConfigurationError(
            f"{where}: share=True means nothing here, tabs share what is asked for by "
            "GET: leave it out"
        )
    if settings.share and not settings.control_events:
        raise ConfigurationError(
            f"{where}: share=True needs control events, by which tabs are told of "
            "gaps: leave share out, or control_events"
        )
    if form != "coroutine" and classes_with_two_names(settings.events or {}):
        raise ConfigurationError(
            f"{where}: events: one type has two names, so that the type names no "
            "event: yield ServerSentEvent(data, event=...) in place of it"
        )
    if form == "shared" and settings.on_slow == "conflate":
        raise ConfigurationError(
            f"{where}: on_slow='conflate' needs events with a key, which channels have "
            "and a shared run has not: use 'gap' or 'disconnect'"
        )
    if form == "shared" and settings.methods != ("GET",):
        raise ConfigurationError(
            f"{where}: a shared run has no request, and is followed by GET only: leave "
            "methods out"
        )
