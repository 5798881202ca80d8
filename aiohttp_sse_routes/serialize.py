"""What a handler yields, as the text of an event's data.

Law: a value becomes the same bytes wherever it is yielded; ``str`` and UTF-8 bytes go
out as they are, everything else as JSON by msgspec. What cannot be sent (NaN, NUL,
bytes that are not UTF-8) raises `EventError` and nothing else.
"""

from __future__ import annotations

__all__ = ("PLAIN", "Dumps", "json_into", "serialize", "to_json")

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .errors import EventError

_NUL: Final = "data holds NUL, which some browsers drop: send it as JSON"

PLAIN: Final = frozenset({dict, list, tuple, int, float, bool})
"""The kinds of value that are JSON and nothing else."""

Dumps = Callable[[Any], "str | bytes"]
"""Turns a value into JSON text; `setup(dumps=...)` takes one."""


def serialize(value: Any, dumps: Dumps | None = None) -> tuple[bytes, bool]:
    """Return the bytes of *value*, and whether they are JSON that was made here.

    Raises:
        EventError: the value cannot be sent.
    """
    if isinstance(value, str):
        data = _encoded(value)
    elif isinstance(value, (bytes, bytearray)):
        data = _utf8(value)
    else:
        return _json(value, dumps), True
    if 0 in data:
        raise EventError(_NUL)
    return data, False


def _json(value: Any, dumps: Dumps | None) -> bytes:
    if dumps is None:
        return to_json(value)
    text = dumps(value)
    if isinstance(text, str):
        return _checked(_encoded(text))
    if isinstance(text, (bytes, bytearray)):
        return _checked(_utf8(text))
    raise EventError(
        f"dumps returned {type(text).__name__} for {_kind(value)}: it must return "
        "str or bytes"
    )


def to_json(value: Any) -> bytes:
    """Return *value* as JSON (RFC 8259), UTF-8 encoded.

    Raises:
        EventError: JSON cannot carry it; NaN and infinities are such values.
    """
    try:
        text = _encoder.encode(value)
    except EventError:
        raise
    except Exception as exc:
        # An infinite recursion and a surrogate come here too: whatever a value's own
        # conversion raises concerns this event alone.
        raise EventError(f"{_kind(value)} cannot be sent as JSON: {exc}") from exc
    # Raw JSON of the user's goes out unseen otherwise.
    _checked(text)
    # msgspec writes NaN as null. Only a text that has a null can hide one.
    if text.find(b"null") >= 0 and _has_nan(value):
        raise EventError(
            f"{_kind(value)} holds NaN or an infinity, which JSON does not know: "
            "send None or a string in its place"
        )
    return text


def _convert(value: Any) -> Any:
    """Hand on what msgspec does not know itself.

    Pydantic models by their own dump; a kind of text or number, such as Jinja's Markup
    and numpy's float64, as what it is one of.
    """
    if _is_pydantic(value):
        return value.model_dump(mode="json")
    plain = _plain(value)
    if plain is not None:
        return plain
    raise EventError(
        f"{_kind(value)} cannot be sent as JSON: yield a dict, list, dataclass, attrs "
        "class, msgspec.Struct or pydantic model, or pass setup(dumps=...)"
    )


_encoder = msgspec.json.Encoder(enc_hook=_convert)

json_into: Final = _encoder.encode_into
"""Does what `to_json` does, into a ``bytearray``, but for its checks."""


def _is_pydantic(value: Any) -> bool:
    return hasattr(type(value), "__pydantic_serializer__") and hasattr(
        value, "model_dump"
    )


def _plain(value: Any) -> str | int | float | None:
    # By their class and not by the value, whose own conversion may say anything else.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else None


def _inside(value: Any) -> Any:
    # pydantic's JSON mode has made None of a NaN where a field's type is Any.
    return value.model_dump() if _is_pydantic(value) else _plain(value)


def _has_nan(value: Any) -> bool:
    try:
        stack = [msgspec.to_builtins(value, enc_hook=_inside)]
    except Exception:  # noqa: BLE001 -- it could be encoded, so it holds no NaN of ours
        return False
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return False


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise EventError(f"data is not valid Unicode: {exc}") from exc


def _utf8(data: bytes | bytearray) -> bytes:
    data = bytes(data)
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        raise EventError(
            f"data is not UTF-8 ({exc}): an event stream carries text only, send "
            "bytes as base64"
        ) from exc
    return data


def _checked(data: bytes) -> bytes:
    if 0 in data:
        raise EventError(_NUL)
    return data


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"
