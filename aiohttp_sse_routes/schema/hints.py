"""Annotations as they were meant: evaluated, unwrapped, unions taken apart.

Law: what cannot be evaluated, as a name that only type checkers import, is `Any`; no
error leaves this module.
"""

from __future__ import annotations

__all__ = ("hints_of", "members_of", "return_hint", "unwrapped")

import collections.abc
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..event import ServerSentEvent
from ..streams.channels import Channels

if sys.version_info >= (3, 14):
    import annotationlib

# What handlers are annotated with is often imported for type checkers alone.
_USUAL: Final[Mapping[str, Any]] = {
    "Any": Any,
    "AsyncGenerator": collections.abc.AsyncGenerator,
    "AsyncIterable": collections.abc.AsyncIterable,
    "AsyncIterator": collections.abc.AsyncIterator,
    "Channels": Channels,
    "ServerSentEvent": ServerSentEvent,
}
# By name, for those of typing_extensions are others.
_QUALIFIERS: Final = frozenset(
    ("ClassVar", "Final", "NotRequired", "ReadOnly", "Required")
)


def return_hint(function: Callable[..., Any]) -> Any:
    """Return what *function* is annotated to return; `Any` if that is not known."""
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    hint = _annotations(function).get("return", Any)
    names = {**_USUAL, **getattr(function, "__globals__", {})}
    names.update(_closure(function))
    return _evaluated(hint, names)


def hints_of(cls: type) -> dict[str, Any]:
    """Return the annotations of *cls* and its bases, each evaluated by itself."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names = dict(vars(sys.modules.get(base.__module__, types)))
        names[base.__name__] = base
        for name, hint in _annotations(base).items():
            found[name] = _evaluated(hint, names)
    return found


def unwrapped(hint: Any) -> Any:
    """Return *hint* without ``Annotated``, ``NewType`` and what says no type."""
    while True:
        origin = typing.get_origin(hint)
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif origin is typing.Annotated or getattr(origin, "_name", "") in _QUALIFIERS:
            hint = typing.get_args(hint)[0]
        else:
            return hint


def members_of(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, those of unions in it too; else *hint* alone.

    A literal of several values is a union.
    """
    hint = unwrapped(hint)
    if _is_alias(hint):
        inner = members_of(hint.__value__)
        # Kept as the name that it is, where it is no union.
        return inner if len(inner) > 1 else (hint,)
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [part for arg in args for part in members_of(arg)]
    elif origin is typing.Literal:
        parts = [typing.Literal[arg] for arg in args]
    else:
        parts = [hint]
    return tuple(types.NoneType if part is None else part for part in parts)


def _is_alias(hint: Any) -> bool:
    return hasattr(hint, "__value__") and hasattr(hint, "__type_params__")


def _annotations(of: Any) -> dict[str, Any]:
    try:
        if sys.version_info >= (3, 14):
            return annotationlib.get_annotations(
                of, format=annotationlib.Format.FORWARDREF
            )
        return inspect.get_annotations(of)
    except Exception:  # noqa: BLE001 -- they are code of the user's
        return {}


def _closure(function: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    cells = getattr(function, "__closure__", None) or ()
    code = getattr(function, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    return names


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": hint})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 -- a name is not there, or its evaluation fails
        return Any
