"""What is said of a type is what goes over the wire.

Law: a value is serialised as a generator's is, and what comes out is held against the
schema of its type by a validator that is not ours.
"""

from __future__ import annotations

import enum
import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NewType, TypedDict

import jsonschema
import pytest

from aiohttp_sse_routes import Channels, ServerSentEvent
from aiohttp_sse_routes.schema.events import RouteEvents, events_of
from aiohttp_sse_routes.schema.hints import members_of
from aiohttp_sse_routes.schema.types import Schema, Schemas
from aiohttp_sse_routes.serialize import serialize

from . import typed
from .typed import VALUES, Halted, Inner, Model, Opaque, Page, Point, Presence, Price

if TYPE_CHECKING:
    from _typeshed import SupportsRead as Unknown


def named(value: Any) -> str:
    """Return what a test's case is called: the same in each process."""
    text = getattr(value, "__name__", None) or str(value)
    return re.sub(" at 0x[0-9a-f]+", "", text)


def whole(kind: Any) -> tuple[Schema, Schema]:
    """Return the schemas of *kind* as text and as JSON, each with all it refers to."""
    schemas = Schemas(prefix="#/$defs/")
    carried = schemas.carried(members_of(kind))
    never: Schema = {"not": {}}
    return (
        {**(carried.text or never), "$defs": schemas.components},
        {**(carried.json or never), "$defs": schemas.components},
    )


def fits(value: Any, schema: Schema) -> bool:
    """Return whether *value* fits *schema*."""
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=named)
def test_a_value_fits_the_schema_of_its_type(kind: Any, values: list[Any]) -> None:
    """What goes over the wire is what is said of its type; of a class, all of it."""
    text, coded = whole(kind)
    for value in values:
        data, is_json = serialize(value)
        sent = json.loads(data) if is_json else data.decode()
        assert fits(sent, coded if is_json else text), (sent, text, coded)
        if "$ref" in coded and isinstance(sent, dict):
            schema = _resolved(coded)
            known = schema.get("properties", {}).keys()
            assert sent.keys() <= known or "additionalProperties" in schema
            # And nothing that is always there is said to be there sometimes.
            everywhere = [set(json.loads(serialize(other)[0])) for other in values]
            assert set(schema["required"]) == set.intersection(*everywhere)


def _resolved(schema: Schema) -> Schema:
    found: Schema = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return found


WRONG = (
    (int, "1"),
    (bool, 1),
    (float, None),
    (Price, {"symbol": "ABC"}),
    (Price, {"symbol": "ABC", "price": 1.5, "at": "x", "note": None, "parts": []}),
    (Literal["a", 1], True),
    (typed.Colour, "green"),
    (typed.Colour, "RED"),
    (list[int], ["x"]),
    (tuple[int, str], [1]),
    (tuple[int, str], [1, "x", 2]),
    (tuple[()], [1]),
    (dict[str, int], {"x": "y"}),
    (Page[int], {"items": ["x"], "next": None}),
    (Presence, {"user": "ann", "state": "gone"}),
    (Model, {"id": "x"}),
    (typed.Moved, {"type": "Other", "movedBy": 1}),
    (typed.Row, {"first": 1, "second": "x"}),
)


@pytest.mark.parametrize(("kind", "value"), WRONG, ids=named)
def test_another_value_does_not_fit(kind: Any, value: Any) -> None:
    """A schema says something: what is not of its type does not fit."""
    assert not fits(value, whole(kind)[1])


def test_serializers_and_bases() -> None:
    """A serializer that does not say what it returns is unknown; one that does, is not.

    A type variable of a base is what it was given.
    """
    schemas = Schemas()
    schemas.of(typed.Odd)
    properties = schemas.components["Odd"]["properties"]
    assert ({}, {"type": "string"}) == (properties["number"], properties["other"])
    schemas.of(typed.Book)
    items = schemas.components["Book"]["properties"]["items"]
    assert {"type": "array", "items": {"type": "integer"}} == items
    schemas.of(typed.Shelf[int])
    assert items == schemas.components["ShelfInt"]["properties"]["items"]
    schemas.of(typed.Shelf)
    bare = schemas.components["Shelf"]["properties"]["items"]
    assert {"type": "array", "items": {}} == bare


@dataclass
class _Broken:
    """A class with a field whose type is not to be had."""

    known: int
    unknown: Unknown[str]


class _Liar:
    """Says that it is made by attrs."""

    __attrs_attrs__ = 3


@pytest.mark.parametrize(
    "kind",
    [Opaque, object, Any, Callable[[], int], complex, type, "Price", 3, _Liar],
    ids=lambda kind: type(kind).__name__,
)
def test_what_is_not_known_is_unknown(kind: Any) -> None:
    """A type that cannot be described is the empty schema, and no error."""
    assert {} == Schemas().of(kind)
    assert Schemas().of(list[kind]) == {"type": "array", "items": {}}


def test_one_unknown_field_leaves_the_others() -> None:
    """A field whose type is not to be had is unknown, and the class is described."""
    schemas = Schemas()
    schemas.of(_Broken)
    properties = schemas.components["_Broken"]["properties"]
    assert {"known": {"type": "integer"}, "unknown": {}} == properties


def test_descriptions() -> None:
    """What docstrings and annotations say is said; what was made for them is not."""
    schemas = Schemas()
    schemas.of(Price)
    schemas.of(Page[int])
    price = schemas.components["Price"]
    assert price["description"].startswith("What something costs.\n\nA line")
    assert "when it was asked" == price["properties"]["at"]["description"]

    @dataclass
    class Bare:
        x: int

    schemas.of(Bare)
    assert "description" not in schemas.components["Bare"]


def test_two_classes_of_one_name() -> None:
    """They are two components, also where pydantic has named one of them."""
    # Each in a place of its own, where another could not see it.
    one = type("Inner", (), {"__annotations__": {"x": int}, "__module__": "m.n"})
    other = type("Inner", (), {"__annotations__": {"y": int}, "__module__": "m.n"})
    schemas = Schemas()
    assert {"$ref": "#/components/schemas/Inner"} == schemas.of(dataclass(one))
    assert {"$ref": "#/components/schemas/m_n_Inner"} == schemas.of(dataclass(other))
    schemas.of(Model)
    schemas.of(Inner)
    names = [name for name in schemas.components if "Inner" in name]
    assert 3 == len(names)
    inner = schemas.components["Model"]["properties"]["inner"]["$ref"]
    assert {"$ref": inner} == schemas.of(Inner)
    properties = schemas.components[inner.rpartition("/")[2]]["properties"]
    assert ["when"] == list(properties)


def test_the_same_in_every_process() -> None:
    """What is said does not depend on the process: workers serve the same bytes."""
    program = (
        "import json; from tests.typed import VALUES\n"
        "from aiohttp_sse_routes.schema.types import Schemas\n"
        "s = Schemas(); found = [s.of(kind) for kind, _ in VALUES]\n"
        "print(json.dumps([found, s.components]))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert 1 == len(texts)
    assert 5_000 < len(texts.pop())


# -- events ----------------------------------------------------------------------------


async def _prices() -> AsyncIterator[Price]:
    yield Price("ABC", 1)  # type: ignore[arg-type]


async def _generator() -> AsyncGenerator[Price | None, None]:
    yield None


async def _iterable() -> AsyncIterable["Price | Halted"]:  # noqa: UP037 -- quoted
    return _prices()


async def _events() -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent("x")


async def _some_events() -> AsyncIterator[Price | ServerSentEvent]:
    yield ServerSentEvent("x")


async def _nothing() -> AsyncIterator[None]:
    yield None


async def _channels() -> Channels:
    return Channels("x")


async def _either() -> Channels | AsyncIterator[Price]:
    return Channels("x")


async def _bare(it: Any):  # type: ignore[no-untyped-def]
    yield 1


async def _any() -> AsyncIterator[Any]:
    yield 1


async def _missing() -> AsyncIterator[Unknown[str]]:
    yield sys.stdin


async def _presence() -> AsyncIterator[Presence | Literal["x"]]:
    yield "x"


class _Offer(Price):
    """A better one."""


async def _offers() -> AsyncIterator[_Offer | Point]:
    yield Point(1)


Symbol = NewType("Symbol", str)
ANY: RouteEvents = RouteEvents({}, others=True)


@pytest.mark.parametrize(
    ("function", "declared", "expected"),
    [
        (_prices, None, {"message": (Price,)}),
        (_prices, {}, {"message": (Price,)}),
        (_generator, None, {"message": (Price,)}),
        (_iterable, None, {"message": (Price, Halted)}),
        (_nothing, None, {}),
        (_events, None, ANY),
        (_some_events, None, ANY),
        (_channels, None, ANY),
        (_either, None, ANY),
        (_bare, None, ANY),
        (_any, None, ANY),
        (_missing, None, ANY),
        (None, None, ANY),
        (_prices, {"price": Price}, {"price": (Price,)}),
        (_offers, {"price": Price}, {"price": (Price,), "message": (Point,)}),
        (
            _iterable,
            {"price": Price, "message": int},
            {"price": (Price,), "message": (int, Halted)},
        ),
        (_iterable, {"any": Price | Halted}, {"any": (Price, Halted)}),
        (_some_events, {"price": Price, "x": int}, {"price": (Price,), "x": (int,)}),
        (_channels, {"joined": str, "left": str}, {"joined": (str,), "left": (str,)}),
        (_channels, {"done": None}, {"done": (type(None),)}),
        (_bare, {"symbol": Symbol}, {"symbol": (str,)}),
        # A dict is not named by its TypedDict, nor a string by its literal.
        (
            _presence,
            {"presence": Presence},
            {"presence": (Presence,), "message": (Presence, Literal["x"])},
        ),
        (_presence, {"a": dict, "b": str}, {"a": (dict,), "b": (str,)}),
    ],
)
def test_the_events_of_a_route(function: Any, declared: Any, expected: Any) -> None:
    """``events=`` and the return annotation say which events there are.

    What is yielded without a name is a message; without ``events=`` a ServerSentEvent,
    Channels and what is not annotated may have any name.
    """
    if isinstance(expected, dict):
        expected = RouteEvents(expected, others=False)
    assert expected == events_of(function, declared)


def test_a_local_class_is_found() -> None:
    """A handler within a function sees what that function's scope gives it."""

    @dataclass
    class Local:
        x: int

    async def handler() -> AsyncIterator[Local]:
        yield Local(1)

    assert {"message": (Local,)} == events_of(handler, None).named


class _Methods:
    async def method(self, request: Any) -> AsyncIterator[Price]:
        yield Price("ABC", 1)  # type: ignore[arg-type]


def test_a_method() -> None:
    """A bound method's annotation is read as a function's is."""
    assert {"message": (Price,)} == events_of(_Methods().method, None).named


def test_text_and_json() -> None:
    """What is sent as text is told from what is sent as JSON."""
    carried = Schemas().carried([str, int, Literal["a"], bytes, type(None)])
    assert {"anyOf": [{"type": "string"}, {"enum": ["a"]}]} == carried.text
    assert {"anyOf": [{"type": "integer"}, {"type": "null"}]} == carried.json
    only = Schemas().carried([typed.Mood])
    assert ({"$ref": "#/components/schemas/Mood"}, None) == (only.text, only.json)


class _Late(TypedDict, total=False):
    a: int


class _Later(_Late):
    b: int


def test_inherited_typed_dict() -> None:
    """Each key is required as the TypedDict says that it was written in."""
    schemas = Schemas()
    schemas.of(_Later)
    assert ["b"] == schemas.components["_Later"]["required"]
    assert ["a", "b"] == list(schemas.components["_Later"]["properties"])


def test_an_empty_enum() -> None:
    """An enum without members, as a base of others, is not an error."""

    class Base(enum.Enum):
        pass

    schemas = Schemas()
    schemas.of(Base)
    assert "Base" in schemas.components
