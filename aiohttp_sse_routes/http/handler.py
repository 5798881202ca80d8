"""A user's handler, as the rest of the package calls it.

Law: what a handler is has been checked when it was decorated; here it is called, and
what it yields is encoded by its route's options.
"""

from __future__ import annotations

__all__ = ("Target", "declared", "label_of", "maybe_await", "name_of")

import functools
import inspect
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, Literal

from aiohttp import web

from ..callables import function_of
from ..errors import ConfigurationError
from ..naming import names_by_type
from ..settings import Form, RouteSettings
from ..streams.channels import Channels
from ..wire import Encoder
from .hub import Hub

_ITERATORS: Final = ("AsyncGenerator", "AsyncIterable", "AsyncIterator")


class Target:
    """A handler with its route's options.

    Args:
        handler: The user's.
        form: What it is.
        settings: The route's options.
        given: The options that the route itself has set.

    Attributes:
        resumes_itself: Whether the handler was ever seen to give ids of its own. It may
            do so later than a stream has to begin, and be known for it the next time.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        form: Form,
        settings: RouteSettings,
        given: frozenset[str],
    ) -> None:
        self.handler = handler
        self.form = form
        self.settings = settings
        self.given = given
        self.label = label_of(handler)
        self.name = name_of(handler, settings)
        self.resumes_itself = False

    def settings_for(self, hub: Hub) -> RouteSettings:
        """Return the route's settings in *hub*'s application."""
        settings = hub.route_settings.get(self)
        if settings is None:
            settings = self.settings.with_defaults(
                self.given, hub.settings.defaults, self.label
            )
            if (
                "recheck" in self.given
                and settings.guard is None
                and settings.recheck is not None
                and self.form != "coroutine"
            ):
                raise ConfigurationError(
                    f"{self.label}: recheck= has nothing to ask without guard=: give "
                    "one, or leave recheck out"
                )
            hub.route_settings[self] = settings
        return settings

    async def call(self, request: web.Request) -> AsyncIterator[Any] | Channels:
        """Call the handler; return what a private run iterates, or what to follow."""
        result = self.handler(request)
        if self.form == "coroutine":
            result = await result
            if isinstance(result, Channels):
                return result
        iterator = getattr(result, "__aiter__", None)
        if iterator is None:
            raise ConfigurationError(
                f"{self.label} returned {type(result).__name__}: it must return "
                "Channels, or an async iterator, as an async generator is (call the "
                "generator function)"
            )
        found: AsyncIterator[Any] = iterator()
        return found

    def encoder(self, hub: Hub, settings: RouteSettings) -> Encoder:
        """Return what makes the bodies of yielded values: the same for all runs."""
        made = hub.encoders.get(self)
        if made is None:
            made = hub.encoders[self] = self._encoder(hub, settings)
        return made

    def _encoder(self, hub: Hub, settings: RouteSettings) -> Encoder:
        dumps, limit = hub.settings.dumps, hub.settings.max_event_bytes
        names = names_by_type(settings.events) if settings.events else None
        return Encoder(dumps, limit, names)


def name_of(handler: Callable[..., Any], settings: RouteSettings) -> str:
    """Return the route's name, else its handler's."""
    if settings.name is not None:
        return settings.name
    while isinstance(handler, functools.partial):
        handler = handler.func
    name: str = getattr(handler, "__name__", type(handler).__name__)
    return name


def label_of(handler: Callable[..., Any]) -> str:
    """Return the name of *handler*, as logs and errors have it."""
    if isinstance(handler, functools.partial):
        return f"partial of {label_of(handler.func)}"
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


def declared(handler: Callable[..., Any]) -> Literal["channels", "generator"] | None:
    """Return what a coroutine function is annotated to return; None if it is not."""
    function = inspect.unwrap(function_of(handler))
    try:
        kind = typing.get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 -- a name that exists for type checkers only
        kind = getattr(function, "__annotations__", {}).get("return")
    if isinstance(kind, str):
        name = kind.partition("[")[0].rpartition(".")[2]
        if name == Channels.__name__:
            return "channels"
        return "generator" if name in _ITERATORS else None
    kind = typing.get_origin(kind) or kind
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Channels):
        return "channels"
    return "generator" if issubclass(kind, AsyncIterable) else None


async def maybe_await(value: Any) -> Any:
    """Return *value*, awaited if it is to be."""
    return await value if inspect.isawaitable(value) else value
