"""What a handler yields, as text: each type that JSON can carry, and no other."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_sse_routes import EventError
from aiohttp_sse_routes.serialize import serialize, to_json

from .strategies import json_values


@dataclasses.dataclass
class Data:
    """A dataclass."""

    x: Any


@attrs.define
class Attrs:
    """An attrs class."""

    x: Any


class Struct(msgspec.Struct):
    """A struct."""

    x: Any


class Model(pydantic.BaseModel):
    """A pydantic model whose field may be anything."""

    x: Any


class FloatModel(pydantic.BaseModel):
    """A pydantic model with a typed field."""

    x: float


class DictModel(pydantic.BaseModel):
    """A pydantic model with a loose dict, as many have."""

    x: dict[str, Any]


class RootModel(pydantic.RootModel[list[Any]]):
    """A pydantic model that is a list."""


@pydantic.dataclasses.dataclass
class PydanticData:
    """A dataclass of pydantic's."""

    x: Any


class Named(NamedTuple):
    """A named tuple."""

    x: Any


class Level(enum.Enum):
    """An enumeration."""

    HIGH = "high"
    LOW = 1


class Number(enum.IntEnum):
    """An enumeration of numbers."""

    ONE = 1


class Word(enum.StrEnum):
    """An enumeration of text: a str."""

    HELLO = "hello"


class Aliased(pydantic.BaseModel):
    """A model that has its own idea of how it is dumped."""

    when: dt.date

    @pydantic.field_serializer("when")
    def _year(self, when: dt.date) -> int:
        return when.year


class Text(str):
    """A kind of text, as Jinja's Markup is one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "for people"


class Count(int):
    """A kind of whole number."""


class Share(float):
    """A kind of number, as numpy's float64 is one."""


HOLDERS = [Data, Attrs, Struct, Model, PydanticData]
UUID = uuid.UUID(int=1)
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (None, None),
        ("é\n\0", "é\n\0"),
        ([1, {"a": None}], [1, {"a": None}]),
        (NOON, "2026-01-02T12:00:00Z"),
        (NOON.date(), "2026-01-02"),
        (UUID, str(UUID)),
        (decimal.Decimal("1.50"), "1.50"),
        (Level.HIGH, "high"),
        (Level.LOW, 1),
        (Number.ONE, 1),
        (Text("<p>"), "<p>"),
        (Count(2**70), 2**70),
        ([Share(0.5)], [0.5]),
        ({1}, [1]),
        (frozenset([1]), [1]),
        ((1, 2), [1, 2]),
    ],
)
def test_objects_and_what_they_hold(
    holder: Callable[..., Any], value: Any, expected: Any
) -> None:
    """Dataclass, attrs, Struct and pydantic model carry each kind of value."""
    text, is_json = serialize(holder(x=value))
    assert is_json
    assert {"x": expected} == json.loads(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (True, True),
        (-1.5, -1.5),
        (2**70, 2**70),
        ([], []),
        ({}, {}),
        ({1: 2, UUID: 3}, {"1": 2, str(UUID): 3}),
        ({Text("a"): 2, Count(1): Share(3)}, {"a": 2, "1": 3}),
        ([None], [None]),
        (Named(3), [3]),
        (NOON, "2026-01-02T12:00:00Z"),
        (UUID, str(UUID)),
        (decimal.Decimal("1.50"), "1.50"),
        (Level.HIGH, "high"),
        (RootModel([1, {"a": 2}]), [1, {"a": 2}]),
        (Aliased(when=NOON.date()), {"when": 2026}),
        ([Aliased(when=NOON.date())], [{"when": 2026}]),
        ({"a": b"\xff"}, {"a": "/w=="}),
    ],
)
def test_plain_values(value: Any, expected: Any) -> None:
    """What JSON can carry goes out as JSON."""
    text, is_json = serialize(value)
    assert is_json
    assert expected == json.loads(text)


@pytest.mark.parametrize("outer", HOLDERS[:3])
@pytest.mark.parametrize("middle", [list, tuple, lambda x: {"k": x[0]}])
@pytest.mark.parametrize("inner", [Data, Struct, Model, PydanticData])
def test_nested(
    outer: Callable[..., Any], middle: Callable[..., Any], inner: Callable[..., Any]
) -> None:
    """They carry one another, pydantic models by their own dump wherever they are."""
    found = json.loads(to_json(outer(x=middle([inner(x=Level.HIGH)]))))["x"]
    content = {"x": "high"}
    assert found in ([content], {"k": content})


@given(value=json_values)
def test_json_comes_back(value: Any) -> None:
    """Every JSON value is decoded as it was, and is one line."""
    text = to_json(value)
    assert value == json.loads(text)
    assert not set(text) & {0, 10, 13}


# -- NaN -------------------------------------------------------------------------------

NANS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NANS)
@pytest.mark.parametrize(
    "holding",
    [
        lambda x: x,
        lambda x: [1, [x]],
        lambda x: {"a": {"b": x}},
        lambda x: [None, Share(x)],
        lambda x: {x},
        lambda x: (None, x),
        Named,
        Data,
        Attrs,
        Struct,
        lambda x: Model(x=x),
        lambda x: FloatModel(x=x),
        lambda x: DictModel(x={"deep": [x]}),
        lambda x: RootModel([x]),
        lambda x: PydanticData(x=x),
        lambda x: Data([Model(x=Model(x=x))]),
        lambda x: {"models": [FloatModel(x=1), FloatModel(x=x)]},
        lambda x: Struct({"a": Attrs([Data(x)])}),
        lambda x: Model(x={"a": [None, x]}),
    ],
)
def test_nan_is_refused_wherever_it_is(
    holding: Callable[[float], Any], number: float
) -> None:
    """JSON knows no NaN and no infinity, and null would be a lie."""
    with pytest.raises(EventError, match="NaN"):
        to_json(holding(number))


class Anything(pydantic.BaseModel):
    """A model that holds what only its own dump understands."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    x: Any
    y: Any = None

    @pydantic.field_serializer("x")
    def _text(self, x: object) -> str:
        return "opaque"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Anything(x=object()), {"x": "opaque", "y": None}),
        (Anything(x=math.nan), {"x": "opaque", "y": None}),
        (Anything(x=1, y={(1, 2): None}), {"x": "opaque", "y": {"1,2": None}}),
        ({"a": None, "b": "NaN"}, {"a": None, "b": "NaN"}),
        ("null", None),
    ],
)
def test_null_is_no_nan(value: Any, expected: Any) -> None:
    """An honest null, and a model's own text for what JSON cannot carry, go out."""
    text, is_json = serialize(value)
    assert is_json != isinstance(value, str)
    assert expected == json.loads(text)


# -- text and bytes --------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", '{"a": 1}', "é 🎉\r\n", "\ufeff", Word.HELLO])
def test_text_goes_out_as_it_is(value: str) -> None:
    """A str is not encoded as JSON, an enumeration of text included."""
    assert (str(value).encode(), False) == serialize(value)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_go_out_as_they_are(kind: Callable[[bytes], Any]) -> None:
    """UTF-8 bytes are text."""
    assert ("é 🎉".encode(), False) == serialize(kind("é 🎉".encode()))


@pytest.mark.parametrize(
    "value",
    [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", bytearray(b"\xff")],
    ids=["no-start", "cut", "surrogate", "overlong", "bytearray"],
)
def test_bytes_that_are_not_utf8_are_refused(value: bytes) -> None:
    """A stream carries text only; the error says what to do."""
    with pytest.raises(EventError, match="base64"):
        serialize(value)


@pytest.mark.parametrize("value", ["a\0b", b"a\0b", "\0"])
def test_nul_is_refused(value: str | bytes) -> None:
    """Firefox drops NUL from a stream; in JSON it is escaped."""
    with pytest.raises(EventError, match="NUL"):
        serialize(value)
    assert b'["\\u0000"]' == to_json(["\0"])


@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], {"\ud800": 1}, Data("\ud800")])
def test_lone_surrogates_are_refused(value: Any) -> None:
    """They are no Unicode text, alone or in JSON."""
    with pytest.raises(EventError):
        serialize(value)


# -- what cannot be sent ---------------------------------------------------------------


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


class Broken(pydantic.BaseModel):
    """A model whose dump fails."""

    x: int = 1

    @pydantic.field_serializer("x")
    def _fail(self, x: int) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        iter([1]),
        len,
        Data,
        ValueError("x"),
        {(1, 2): 3},
        {None: 1},
        [object()],
        Data(object()),
        Model(x=object()),
        Broken(),
        _cycle(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    """One error for all of it, whatever goes wrong within."""
    with pytest.raises(EventError):
        to_json(value)


def test_the_error_names_the_type() -> None:
    """Who yields something impossible is told what, and what would do."""
    with pytest.raises(EventError, match=r"builtins\.complex.*dataclass.*dumps"):
        to_json(1j)


def test_raw_json_is_not_trusted_with_nul() -> None:
    """JSON that is handed through keeps the law of the wire."""
    assert b'{"a": 1}' == to_json(msgspec.Raw(b'{"a": 1}'))
    with pytest.raises(EventError, match="NUL"):
        to_json(msgspec.Raw(b'"a\0"'))


# -- dumps -----------------------------------------------------------------------------


@pytest.mark.parametrize("result", ['{"a":\n1}', b'{"a":\n1}', bytearray(b'{"a":\n1}')])
def test_dumps_takes_the_place_of_msgspec(result: Any) -> None:
    """Its text or bytes go out as JSON; text that is yielded does not go through it."""
    given_to: list[Any] = []

    def dumps(value: Any) -> Any:
        given_to.append(value)
        return result

    assert (b'{"a":\n1}', True) == serialize({"a": 1}, dumps)
    assert (b"text", False) == serialize("text", dumps)
    assert [{"a": 1}] == given_to


@pytest.mark.parametrize("result", [None, 1, {"a": 1}, "\ud800", b"\xff", "a\0"])
def test_what_dumps_returns_is_checked(result: Any) -> None:
    """It must be text that can be sent."""
    with pytest.raises(EventError):
        serialize({"a": 1}, lambda value: result)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text(text: str) -> None:
    """Every text without NUL goes out unchanged."""
    assert (text.encode(), False) == serialize(text)
    assert (text.encode(), False) == serialize(text.encode())
