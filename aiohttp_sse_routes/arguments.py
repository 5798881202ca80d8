"""The arguments of ``setup``, each as it is to be used.

Law: what is wrong is found here, before the application is touched, and the error says
what to write in place of it. Route options for all routes are `settings`' to check.
"""

from __future__ import annotations

__all__ = (
    "check_settings",
    "checked_defaults",
    "checked_inspector",
    "checked_origins",
    "checked_prefix",
    "checked_routes",
    "checked_store",
)

import inspect
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from yarl import URL

from .checks import check_callable, check_count, check_dumps, check_seconds
from .errors import ConfigurationError
from .http.hub import HubSettings
from .http.inspector import Guard
from .logs.memory import MemoryStore
from .logs.store import Store
from .settings import DEFAULTABLE, RouteDefaults, RouteSettings, UnknownOption


def checked_store(store: Any) -> Store:
    """Return *store*; one in memory where it is None."""
    if store is None:
        return MemoryStore()
    if not isinstance(store, Store):
        raise ConfigurationError(
            f"setup: store={store!r} must be a store, such as SQLiteStore('events.db')"
        )
    return store


def checked_inspector(guard: Any) -> Guard | None:
    """Return *guard*, which says who may see the inspector."""
    if guard is None:
        return None
    if not callable(guard) or inspect.isclass(guard):
        raise ConfigurationError(
            f"setup: inspector={guard!r} must be a function that says who may see the "
            "page, such as one that returns request.get('user') in ADMINS: it takes "
            "the request, and raises or returns False to refuse"
        )
    check_callable("setup: inspector", guard)
    checked: Guard = guard
    return checked


def checked_routes(routes: Any) -> list[web.AbstractRouteDef]:
    """Return *routes* as a list; one alone is one too."""
    try:
        checked = list(routes)
    except TypeError:
        checked = [routes]
    for route in checked:
        if not isinstance(route, web.AbstractRouteDef):
            raise ConfigurationError(
                f"setup: routes holds {route!r}, which is no route: give an "
                "SSERouteTableDef, or a list of SSERouteDef(path, handler)"
            )
    return checked


def checked_prefix(name: str, value: str, *, empty: bool = False) -> str:
    """Return *value*, a path, without a slash at its end; *empty* says it may be."""
    if not isinstance(value, str):
        raise ConfigurationError(f"setup: {name}={value!r} must be a str")
    value = value.rstrip("/")
    if (value or not empty) and not value.startswith("/"):
        raise ConfigurationError(
            f"setup: {name}={value!r} must begin with '/', as '/_sse' does"
        )
    if any(char in value for char in "{}?#\r\n\"'<> "):
        raise ConfigurationError(f"setup: {name}={value!r} must be a plain path")
    return value


def checked_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """Return *origins*, each as browsers send it."""
    if isinstance(origins, str):
        raise ConfigurationError(
            f"setup: allow_origins={origins!r} must be a list of origins, such as "
            f"[{origins!r}]"
        )
    if not isinstance(origins, Iterable):
        raise ConfigurationError(
            f"setup: allow_origins={origins!r} must be a list of origins"
        )
    checked = tuple(origins)
    for origin in checked:
        if origin == "*":
            raise ConfigurationError(
                "setup: allow_origins=['*'] would let every site read your users' "
                "streams: name the origins"
            )
        if origin != _origin_of(origin):
            raise ConfigurationError(
                f"setup: allow_origins: {origin!r} is not an origin as browsers send "
                "it: write 'https://example.org', in small letters, without a path or "
                "a default port"
            )
    return checked


def _origin_of(text: Any) -> str | None:
    try:
        return str(URL(text).origin())
    except (TypeError, ValueError):
        return None


def checked_defaults(defaults: RouteDefaults) -> dict[str, Any]:
    """Return *defaults*, which are options of routes and can be set for all."""
    for option in defaults:
        if option not in DEFAULTABLE:
            raise UnknownOption(
                f"setup: {option!r} is not an option; route options that can be set "
                f"for all are {', '.join(sorted(DEFAULTABLE))}"
            )
    RouteSettings.checked(defaults, "setup")
    return dict(defaults)


def check_settings(settings: HubSettings) -> None:
    """Check what is taken as it is: numbers, callables, the clock."""
    check_count("setup: max_event_bytes", settings.max_event_bytes, least=1)
    check_count("setup: max_detached", settings.max_detached)
    check_seconds("setup: shutdown_grace", settings.shutdown_grace)
    for name in ("max_connections", "max_connections_per_client"):
        value = getattr(settings, name)
        if value is not None:
            check_count(f"setup: {name}", value, least=1)
    if settings.client_key is not None and settings.max_connections_per_client is None:
        raise ConfigurationError(
            "setup: client_key= means nothing without max_connections_per_client="
        )
    check_callable("setup: client_key", settings.client_key)
    check_dumps("setup: dumps", settings.dumps)
    if not hasattr(settings.clock, "now") or not hasattr(settings.clock, "sleep"):
        raise ConfigurationError(
            f"setup: clock={settings.clock!r} must have now() and sleep(), as "
            "aiohttp_sse_routes.testing.SettableClock has"
        )
