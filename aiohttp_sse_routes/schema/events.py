"""Which events a route has, by name, and what types they carry.

Law: told by ``events=`` and the handler's return annotation, and by nothing that runs.
The rule by which a yielded object gets its name is that of the encoder.
"""

from __future__ import annotations

__all__ = ("DEFAULT_NAME", "RouteEvents", "events_of")

import collections.abc
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..event import ServerSentEvent
from ..naming import names_by_type
from ..streams.channels import Channels
from .hints import members_of, return_hint, unwrapped

DEFAULT_NAME: Final = "message"
"""The name of an event that was given none."""

_ITERATORS: Final = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)


@dataclass(frozen=True, slots=True)
class RouteEvents:
    """The events of a route.

    Attributes:
        named: The types of each event, by its name; more than one is a union.
        others: Whether there may be events of other names, with any data.
    """

    named: Mapping[str, tuple[Any, ...]]
    others: bool


def events_of(
    function: Callable[..., Any] | None, declared: Mapping[str, Any] | None
) -> RouteEvents:
    """Return the events of a route.

    Args:
        function: What its handler runs, from whose return annotation the types of what
            it yields are read: ``AsyncIterator[Price | Halted]``.
        declared: The route's ``events=``. With them nothing is said of events that the
            annotation does not name either: of ``ServerSentEvent`` and ``Any``.
    """
    named = {name: members_of(kind) for name, kind in (declared or {}).items()}
    yielded = _yielded(return_hint(function)) if function is not None else (Any,)
    by_type = names_by_type(declared or {})
    unnamed = [
        kind
        for kind in yielded
        if kind is not types.NoneType
        and not _is_open(kind)
        and not _has_name(kind, by_type)
    ]
    others = not declared and any(_is_open(kind) for kind in yielded)
    # An event without a name may carry anything, where a ServerSentEvent is yielded.
    if unnamed and not others:
        named[DEFAULT_NAME] = (*named.get(DEFAULT_NAME, ()), *unnamed)
    return RouteEvents(named, others)


def _yielded(hint: Any) -> tuple[Any, ...]:
    """Return the types that are yielded, `Any` among them if that is not known."""
    found: list[Any] = []
    for kind in members_of(hint):
        args = typing.get_args(kind)
        if typing.get_origin(kind) in _ITERATORS and args:
            found += members_of(args[0])
        else:
            found.append(Any)
    return tuple(found)


def _is_open(kind: Any) -> bool:
    if kind in (Any, object) or isinstance(kind, typing.TypeVar):
        return True
    return isinstance(kind, type) and issubclass(kind, (ServerSentEvent, Channels))


def _has_name(kind: Any, by_type: Mapping[type, str]) -> bool:
    kind = unwrapped(kind)
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        origin = type(typing.get_args(kind)[0])
    kind = origin or kind
    if typing.is_typeddict(kind):
        kind = dict
    return isinstance(kind, type) and any(base in by_type for base in kind.__mro__)
