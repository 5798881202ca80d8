"""Which classes the types of ``events=`` are, and so what names what is yielded.

Law: a class names, and so does each of a union; any other type is told to the client
and names nothing. Whoever asks is answered by the same rule.
"""

from __future__ import annotations

__all__ = ("classes_with_two_names", "is_type", "names_by_type")

from collections import Counter
from collections.abc import Mapping
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin


def is_type(value: Any) -> bool:
    """Return whether *value* is a type, as an annotation may be one."""
    return (
        value is None
        or value is Any
        or isinstance(value, (type, NewType))
        or get_origin(value) is not None
        or hasattr(value, "__value__")  # what a type statement makes
    )


def names_by_type(events: Mapping[str, Any]) -> dict[type, str]:
    """Return which name *events* gives to what is yielded, by its class.

    A class that has two names, as only a route of channels may have, is left out.
    """
    found: dict[type, str] = {}
    for name, kind in events.items():
        for one in _classes_of(kind):
            found[one] = name
    twice = classes_with_two_names(events)
    return {kind: name for kind, name in found.items() if kind not in twice}


def classes_with_two_names(events: Mapping[str, Any]) -> set[type]:
    """Return the classes that *events* gives two names, or one name twice."""
    count = Counter(one for kind in events.values() for one in _classes_of(kind))
    return {kind for kind, times in count.items() if times > 1}


def _classes_of(kind: Any) -> tuple[type, ...]:
    """Return the classes of *kind*: itself, or those of a union."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(one for part in get_args(kind) for one in _classes_of(part))
    return (kind,) if isinstance(kind, type) else ()
