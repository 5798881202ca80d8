"""What a route can be told, each option with its default, its bounds and the reason.

Law: an option is checked where it is written, at decoration or at ``setup``; an option
that means nothing for the handler's form is an error. Nothing here does anything.
"""

from __future__ import annotations

__all__ = (
    "DEFAULTABLE",
    "Form",
    "OnSlow",
    "RouteDefaults",
    "RouteOptions",
    "RouteSettings",
    "UnknownOption",
)

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypedDict

from .checks import check_bool, check_callable, check_count, check_seconds
from .errors import ConfigurationError
from .naming import is_type

Form = Literal["generator", "coroutine", "shared"]
"""What a handler is: an async generator function (one run a client), a coroutine
function that returns an async iterator, or an async generator function for all."""

OnSlow = Literal["gap", "disconnect", "conflate"]
"""What happens to a client that the log has overtaken."""


class RouteDefaults(TypedDict, total=False):
    """The options that ``setup`` takes as defaults for all routes."""

    guard: Callable[[Any], Any] | None
    recheck: float | None
    owner: Callable[[Any], Any] | None
    replay: int
    replay_bytes: int
    resume: float
    history: int
    heartbeat: float
    retry: int
    lifetime: float | None
    open_timeout: float
    on_slow: OnSlow
    client: bool
    control_events: bool


class RouteOptions(RouteDefaults, total=False):
    """The options of `sse_route`, `SSERouteTableDef.sse_route` and `SSERouteDef`."""

    name: str | None
    methods: tuple[str, ...]
    shared: bool
    events: Mapping[str, Any] | None
    share: bool | None
    max_connections: int | None


class UnknownOption(ConfigurationError, TypeError):
    """A keyword that is no option; to Python that is a TypeError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """The options of one route, checked.

    Attributes:
        name: The route's name for ``url_for``, and its function's in the client.
        methods: HTTP methods; HEAD comes with GET by itself.
        shared: One generator for all clients on a path, not one for each.
        events: The types of what is yielded by the events' names. A class names what
            is yielded; any other type is for the client's types only.
        guard: Called with the request on every connect, awaited if need be. What it
            raises is the answer; ``False`` is 403.
        recheck: Seconds after which the guard is asked again, and of a channel route
            its coroutine too, spread by a quarter; None for never. Who is refused then
            is told not to come back; who would follow other channels comes back.
        owner: Called with the request: who a private run belongs to, and whom
            `SSE.disconnect` finds by it. By default a hash of the ``Authorization``
            header, for private runs alone.
        replay: Events that a run's log holds. A browser that comes back after a few
            seconds of a busy stream finds all of it.
        replay_bytes: Bytes that it holds.
        resume: Seconds that a run goes on without its client: a reload, a tunnel, a
            phone that changes networks.
        history: Past events that a new client of a shared run is given.
        heartbeat: Seconds of silence before a comment is sent. Proxies cut idle
            connections after 60 or 30.
        retry: Milliseconds after which a client comes back, spread by a quarter.
        lifetime: Seconds after which a connection is ended so that load rebalances,
            spread by a tenth; None for never.
        open_timeout: Seconds that the first ``yield`` is waited for, so that what is
            raised before it is a real status.
        on_slow: ``gap``: tell a client that the log has overtaken it, and go on;
            ``disconnect``: end its connection; ``conflate``, of channels: the newest
            event of each ``key``, and a gap where others are lost.
        share: Whether the generated client has one stream for all tabs of a browser.
            By default so of shared runs, and of channels (a coroutine function that
            is annotated to return `Channels`) where the page says who is logged in.
        client: Whether the route is in the generated client.
        control_events: Whether ``sse-`` events are sent.
        max_connections: The most connections to this route; None for no limit.
    """

    name: str | None = None
    methods: tuple[str, ...] = ("GET",)
    shared: bool = False
    events: Mapping[str, Any] | None = None
    guard: Callable[[Any], Any] | None = None
    recheck: float | None = None
    owner: Callable[[Any], Any] | None = None
    replay: int = 500
    replay_bytes: int = 262_144
    resume: float = 15.0
    history: int = 0
    heartbeat: float = 15.0
    retry: int = 3000
    lifetime: float | None = None
    open_timeout: float = 0.2
    on_slow: OnSlow = "gap"
    share: bool | None = None
    client: bool = True
    control_events: bool = True
    max_connections: int | None = None

    @classmethod
    def checked(cls, options: Mapping[str, Any], where: str) -> RouteSettings:
        """Return settings from *options*.

        Raises:
            ConfigurationError: an option is unknown, or has a wrong value.
        """
        known = {field.name for field in fields(cls)}
        for option in options:
            if option not in known:
                raise UnknownOption(
                    f"{where}: there is no option {option!r}; the options are "
                    f"{', '.join(sorted(known))}"
                )
        for option, value in options.items():
            _CHECKS[option](f"{where}: {option}", value)
        settings = cls(**options)
        _check_together(settings, where)
        return replace(settings, methods=tuple(settings.methods))

    def with_defaults(
        self, given: Iterable[str], defaults: Mapping[str, Any], where: str
    ) -> RouteSettings:
        """Return these settings, with *defaults* for what was not *given*.

        Raises:
            ConfigurationError: they do not go together.
        """
        given = set(given)
        merged = {k: v for k, v in defaults.items() if k not in given}
        settings = replace(self, **merged)
        _check_together(settings, where)
        return settings


DEFAULTABLE: Final = frozenset(RouteDefaults.__annotations__)
"""The options that ``setup`` takes as defaults."""


def _check_together(settings: RouteSettings, where: str) -> None:
    if settings.shared and settings.history > settings.replay:
        raise ConfigurationError(
            f"{where}: history={settings.history} is more than the log holds: raise "
            f"replay={settings.replay} to it"
        )


def _optional_bool(where: str, value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise ConfigurationError(f"{where}={value!r} must be True, False or None")


def _positive_count(where: str, value: Any) -> None:
    check_count(where, value, least=1)


def _optional_count(where: str, value: Any) -> None:
    if value is not None:
        check_count(where, value, least=1)


def _positive_seconds(where: str, value: Any) -> None:
    check_seconds(where, value, positive=True)


def _optional_seconds(where: str, value: Any) -> None:
    if value is not None:
        check_seconds(where, value, positive=True)


def _retry(where: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(
            f"{where}={value!r} must be an int of at least 0, in milliseconds"
        )


def _on_slow(where: str, value: Any) -> None:
    if value not in ("gap", "disconnect", "conflate"):
        raise ConfigurationError(
            f"{where}={value!r} must be 'gap', 'disconnect' or 'conflate'"
        )


def _methods(where: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, (tuple, list)) or not value:
        raise ConfigurationError(
            f"{where}={value!r} must be a tuple of HTTP methods, such as ('GET',)"
        )
    for method in value:
        if not isinstance(method, str) or not method.isalpha() or not method.isupper():
            raise ConfigurationError(
                f"{where}={value!r}: {method!r} is not an HTTP method in capitals"
            )
        if method in ("HEAD", "OPTIONS", "CONNECT", "TRACE"):
            raise ConfigurationError(
                f"{where}={value!r}: {method} cannot carry a stream; HEAD and OPTIONS "
                "are answered by themselves, leave them out"
            )
    if len(set(value)) != len(value):
        raise ConfigurationError(f"{where}={value!r} names a method twice")


def _events(where: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{where}={value!r} must map event names to types, as {{'price': Price}}"
        )
    for name, kind in value.items():
        if not isinstance(name, str) or not name or any(c in name for c in "\r\n\0"):
            raise ConfigurationError(f"{where}: {name!r} is not an event name")
        if name.startswith("sse-"):
            raise ConfigurationError(
                f"{where}: {name!r} is reserved: names that begin with 'sse-' are "
                "control events"
            )
        if not is_type(kind):
            raise ConfigurationError(
                f"{where}: {name!r} maps to {kind!r}, which is not a type"
            )


def _name(where: str, value: Any) -> None:
    if value is None:
        return
    parts = re.split(r"[.:-]", value) if isinstance(value, str) else [""]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ConfigurationError(
            f"{where}={value!r} must be a str of identifiers, none of them a keyword, "
            "with dots, dashes or colons between: aiohttp takes no other route name"
        )


_CHECKS: Final[Mapping[str, Callable[[str, Any], None]]] = {
    "name": _name,
    "methods": _methods,
    "shared": check_bool,
    "events": _events,
    "guard": check_callable,
    "recheck": _optional_seconds,
    "owner": check_callable,
    "replay": _positive_count,
    "replay_bytes": _positive_count,
    "resume": check_seconds,
    "history": check_count,
    "heartbeat": _positive_seconds,
    "retry": _retry,
    "lifetime": _optional_seconds,
    "open_timeout": check_seconds,
    "on_slow": _on_slow,
    "share": _optional_bool,
    "client": check_bool,
    "control_events": check_bool,
    "max_connections": _optional_count,
}
