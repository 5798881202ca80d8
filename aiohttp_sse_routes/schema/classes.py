"""Classes that are JSON objects: their fields, as msgspec writes them.

Law: what msgspec writes was measured, class by class; the tests compare the two.
"""

from __future__ import annotations

__all__ = ("Field", "description_of", "fields_of", "is_array", "tag_of")

import dataclasses
import inspect
import typing
from typing import Any, NamedTuple

import msgspec

from .hints import hints_of, members_of


class Field(NamedTuple):
    """A field of a class.

    Attributes:
        name: Its name on the wire.
        hint: Its type.
        required: Whether it is always there.
        description: What its annotation says of it.
    """

    name: str
    hint: Any
    required: bool
    description: str = ""


def fields_of(cls: type) -> list[Field] | None:
    """Return the fields of *cls*, in order; None if it is no class with fields."""
    if issubclass(cls, msgspec.Struct):
        return _struct(cls)
    if dataclasses.is_dataclass(cls):
        hints = hints_of(cls)
        return [_field(f.name, hints.get(f.name, Any)) for f in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs(cls)
    if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
        return _typed_dict(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = hints_of(cls)
        return [_field(name, hints.get(name, Any)) for name in cls._fields]
    return None


def is_array(cls: type) -> bool:
    """Return whether *cls*, which has fields, is an array on the wire."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_config__.array_like
    return issubclass(cls, tuple)


def tag_of(cls: type) -> tuple[str, str | int] | None:
    """Return the name and the value of the tag that msgspec puts before the fields."""
    if not issubclass(cls, msgspec.Struct) or cls.__struct_config__.tag is None:
        return None
    return cls.__struct_config__.tag_field or "type", cls.__struct_config__.tag


def description_of(cls: type) -> str:
    """Return the docstring that was written for *cls*."""
    text = vars(cls).get("__doc__")
    if not isinstance(text, str) or text.startswith(f"{cls.__name__}("):
        return ""  # made by dataclass or NamedTuple
    return inspect.cleandoc(text)


def _field(name: str, hint: Any, *, required: bool = True) -> Field:
    members = members_of(hint)
    kept = tuple(m for m in members if m is not msgspec.UnsetType)
    if len(kept) != len(members):
        required = False
        hint = typing.Union[kept]  # noqa: UP007 -- of a tuple
    return Field(name, hint, required, _said_of(hint))


def _said_of(hint: Any) -> str:
    for extra in getattr(hint, "__metadata__", ()):
        for name in ("description", "documentation"):
            text = getattr(extra, name, None)
            if isinstance(text, str):
                return text
    return ""


def _struct(cls: type[msgspec.Struct]) -> list[Field]:
    hints = hints_of(cls)
    names = cls.__struct_fields__
    defaults = cls.__struct_defaults__
    bare = len(names) - len(defaults)
    omits = cls.__struct_config__.omit_defaults
    found = []
    for place, name in enumerate(names):
        has_default = place >= bare and defaults[place - bare] is not msgspec.NODEFAULT
        found.append(
            _field(
                cls.__struct_encode_fields__[place],
                hints.get(name, Any),
                required=not (omits and has_default),
            )
        )
    return found


def _attrs(cls: Any) -> list[Field]:
    hints = hints_of(cls)
    return [
        _field(a.name, hints.get(a.name, Any if a.type is None else a.type))
        for a in cls.__attrs_attrs__
        # As msgspec does, which writes those of a dataclass.
        if not a.name.startswith("_")
    ]


def _typed_dict(cls: Any) -> list[Field]:
    hints = hints_of(cls)
    found = []
    # A TypedDict's bases are not in its __mro__, its annotations are all its own.
    for name, hint in hints.items():
        required = name in cls.__required_keys__
        qualifier = getattr(typing.get_origin(hint), "_name", "")
        # Its own judgement fails where annotations are strings.
        if qualifier in ("Required", "NotRequired"):
            required = qualifier == "Required"
        found.append(_field(name, hint, required=required))
    return found
