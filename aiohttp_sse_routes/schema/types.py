"""Python types as JSON Schema (draft 2020-12): what they are on the wire.

Law: told is what `aiohttp_sse_routes.serialize` makes of a value, not what could be
read back: a field with a default is always there, a Decimal is a string. What JSON does
not carry, or is not known, is the empty schema, which any value fits; so no type is an
error. The same types give the same text in every process.
"""

from __future__ import annotations

__all__ = ("Carried", "Schema", "Schemas")

import datetime as dt
import decimal
import enum
import re
import types
import typing
import uuid
from collections import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .classes import Field, description_of, fields_of, is_array, tag_of
from .hints import members_of, unwrapped
from .pydantic import Models, is_pydantic, schema_of

Schema = dict[str, Any]

_BASE64: Final[Schema] = {"type": "string", "contentEncoding": "base64"}
_SCALARS: Final[Mapping[Any, Schema]] = {
    types.NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: _BASE64,
    bytearray: _BASE64,
    memoryview: _BASE64,
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
}
_ARRAYS: Final = frozenset(
    (
        list,
        set,
        frozenset,
        abc.Collection,
        abc.Iterable,
        abc.MutableSequence,
        abc.MutableSet,
        abc.Sequence,
        abc.Set,
    )
)
_TEXT: Final = (str, bytes, bytearray)


@dataclass(frozen=True, slots=True)
class Carried:
    """What an event's data is.

    Attributes:
        text: What it is where it is text, sent as it is; None if it never is.
        json: What it is where it is JSON; None if it never is.
    """

    text: Schema | None
    json: Schema | None

    @property
    def value(self) -> Schema:
        """What a client has that parses the JSON."""
        return _union(s for s in (self.text, self.json) if s is not None)


class Schemas:
    """The types of one application.

    Args:
        prefix: What stands before a component's name in a reference.

    Attributes:
        components: The types that have names, by them.
    """

    def __init__(self, prefix: str = "#/components/schemas/") -> None:
        self.components: dict[str, Schema] = {}
        self._prefix = prefix
        self._names: dict[Any, str] = {}
        self._models = Models(self.components, prefix)

    def carried(self, kinds: Sequence[Any]) -> Carried:
        """Return what an event's data is that is of one of *kinds*."""
        text, json = [], []
        for kind in kinds:
            if not _is_text(kind):
                json.append(self.of(kind))
            elif _has_values(kind):
                text.append(self.of(kind))
            else:
                text.append(_SCALARS[str])
        return Carried(
            _union(text) if text else None,
            _union(json) if json else None,
        )

    def of(self, hint: Any, known: Mapping[Any, Any] | None = None) -> Schema:
        """Return the schema of the type *hint*.

        Args:
            hint: A class, or what else an annotation may be.
            known: What the type variables in it stand for.
        """
        try:
            return _union(self._of(kind, known or {}) for kind in members_of(hint))
        except Exception:  # noqa: BLE001 -- classes of the user's may do anything
            return {}

    def _of(self, kind: Any, known: Mapping[Any, Any]) -> Schema:
        kind = unwrapped(kind)
        if isinstance(kind, typing.TypeVar):
            # Less that one: what it stands for may be another of the same name.
            rest = {key: value for key, value in known.items() if key is not kind}
            return self.of(known[kind], rest) if kind in known else {}
        if hasattr(kind, "__value__"):
            return self._named(kind, lambda: self.of(kind.__value__))
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Literal:
            return {"enum": _on_the_wire(args)}
        if origin is not None:
            args = tuple(
                known.get(arg, arg) if isinstance(arg, typing.TypeVar) else arg
                for arg in args
            )
            return self._generic(origin, args, known)
        if kind in _SCALARS:
            return dict(_SCALARS[kind])
        if not isinstance(kind, type) or kind is object:
            return {}
        return self._class(kind)

    def _generic(
        self, origin: Any, args: tuple[Any, ...], known: Mapping[Any, Any]
    ) -> Schema:
        if origin is tuple:
            return self._tuple(args, known)
        if origin in _ARRAYS:
            return {"type": "array", "items": self.of(args[0], known)}
        if isinstance(origin, type) and issubclass(origin, abc.Mapping):
            value = int if len(args) == 1 else args[1]  # a Counter
            return {"type": "object", "additionalProperties": self.of(value, known)}
        if hasattr(origin, "__value__"):
            return self.of(origin.__value__[args], known)
        parameters = getattr(origin, "__parameters__", ())
        return self._class(origin, dict(zip(parameters, args, strict=False)))

    def _tuple(self, args: tuple[Any, ...], known: Mapping[Any, Any]) -> Schema:
        if len(args) == 2 and args[1] is ...:
            return {"type": "array", "items": self.of(args[0], known)}
        return _row([self.of(arg, known) for arg in args])

    def _class(self, cls: type, known: Mapping[Any, Any] | None = None) -> Schema:
        if is_pydantic(cls):
            return self._pydantic(cls)
        if issubclass(cls, enum.Enum):
            return self._named(cls, lambda: _enumeration(cls))
        fields = fields_of(cls)
        if fields is not None:
            key = (cls, *known.values()) if known else cls
            every = {**_bound(cls), **(known or {})}
            return self._named(key, lambda: self._object(cls, fields, every))
        if cls is tuple or cls in _ARRAYS or issubclass(cls, (list, set, frozenset)):
            return {"type": "array"}
        if issubclass(cls, dict) or cls in (abc.Mapping, abc.MutableMapping):
            return {"type": "object"}
        return {}

    def _object(
        self, cls: type, fields: Sequence[Field], known: Mapping[Any, Any]
    ) -> Schema:
        described = {"description": text} if (text := description_of(cls)) else {}
        tag = tag_of(cls)
        if is_array(cls):
            row = [] if tag is None else [{"const": tag[1]}]
            return described | _row(row + [self.of(f.hint, known) for f in fields])
        properties: dict[str, Schema] = {}
        if tag is not None:
            properties[tag[0]] = {"const": tag[1]}
        required = list(properties)
        for field in fields:
            schema = self.of(field.hint, known)
            if field.description:
                schema = {**schema, "description": field.description}
            properties[field.name] = schema
            if field.required:
                required.append(field.name)
        schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        return described | schema

    def _pydantic(self, cls: type) -> Schema:
        if cls not in self._names:
            self._names[cls] = self._models.add(
                schema_of(cls, self._prefix),
                _name_of(cls),
                lambda name: self._free(cls, name),
            )
        return {"$ref": self._prefix + self._names[cls]}

    def _named(self, key: Any, make: abc.Callable[[], Schema]) -> Schema:
        name = self._names.get(key)
        if name is None:
            cls, *args = key if isinstance(key, tuple) else (key,)
            wanted = _name_of(cls) + "".join(map(_argument_name, args))
            name = self._names[key] = self._free(cls, wanted)
            # There already, for what refers to itself.
            self.components[name] = {}
            self.components[name] = make()
        return {"$ref": self._prefix + name}

    def _free(self, cls: Any, name: str) -> str:
        if name in self.components:
            name = f"{_plain(cls.__module__.replace('.', '_'))}_{name}"
        free, number = name, 1
        while free in self.components:
            number += 1
            free = f"{name}{number}"
        return free


def _bound(cls: Any) -> dict[Any, Any]:
    """Return what the type variables of the bases of *cls* stand for."""
    found: dict[Any, Any] = {}
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        parameters = getattr(origin, "__parameters__", ())
        found.update(_bound(origin))
        found.update(zip(parameters, typing.get_args(base), strict=False))
    return found


def _union(schemas: Iterable[Schema]) -> Schema:
    found: list[Schema] = []
    values: list[Any] = []
    for schema in schemas:
        if not schema:
            return {}
        if schema.keys() == {"enum"}:
            values += [v for v in schema["enum"] if not _is_among(v, values)]
        elif schema not in found:
            found.append(schema)
    if values:
        found.append({"enum": values})
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {"not": {}}


def _row(items: list[Schema]) -> Schema:
    if not items:
        return {"type": "array", "maxItems": 0}
    count = len(items)
    return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}


def _enumeration(cls: type[enum.Enum]) -> Schema:
    if issubclass(cls, enum.Flag):
        return {"type": "integer"}
    schema: Schema = {"enum": _on_the_wire(list(cls))}
    text = description_of(cls)
    return {"description": text, **schema} if text else schema


def _on_the_wire(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = msgspec.json.decode(msgspec.json.encode(values))
    return found


def _is_text(kind: Any) -> bool:
    """Return whether a value of *kind* goes out as it is, and not as JSON."""
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(typing.get_args(kind)[0], _TEXT)
    return isinstance(kind, type) and issubclass(kind, _TEXT)


def _has_values(kind: Any) -> bool:
    """Return whether text of *kind* is one of some strings."""
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(typing.get_args(kind)[0], str)
    return issubclass(kind, str) and issubclass(kind, enum.Enum)


def _is_among(value: Any, values: Sequence[Any]) -> bool:
    # To Python, 1 is True.
    return any(type(value) is type(other) and value == other for other in values)


def _argument_name(argument: Any) -> str:
    argument = typing.get_origin(argument) or argument
    name = _plain(getattr(argument, "__name__", "") or str(argument))
    return name[:1].upper() + name[1:]


def _name_of(cls: Any) -> str:
    return _plain(cls.__name__)


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)
