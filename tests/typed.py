"""Routes whose events have types of every kind, for what is generated from them.

Law: each type of `VALUES` is here with values of it, so that what is said of a type can
be compared with what goes over the wire.
"""

from __future__ import annotations

__all__ = ("SHARED", "VALUES", "typed_table")

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import attrs
import msgspec
import pydantic
from aiohttp import web

from aiohttp_sse_routes import Channels, ServerSentEvent, SharedRun, SSERouteTableDef

T = TypeVar("T")
UserId = NewType("UserId", int)
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """How bad it is."""

    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    """Text, and sent as such."""

    GOOD = "good"
    BAD = "bad"


class Mixed(enum.Enum):
    """Values that msgspec would not read back."""

    TEXT = "text"
    NUMBER = 2
    NOTHING = None
    PART = 1.5


class Rights(enum.Flag):
    """Bits."""

    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Price:
    """What something costs.

    A line with */ in it.
    """

    symbol: str
    price: decimal.Decimal
    at: Annotated[dt.datetime, msgspec.Meta(description="when it was asked")] = NOW
    note: str | None = None
    _private: int = 1
    parts: list[Price] = dataclasses.field(default_factory=list, init=False)
    maybe: int | msgspec.UnsetType = msgspec.UNSET
    start: dataclasses.InitVar[int] = 0


@dataclasses.dataclass(slots=True)
class Halted:
    """No trade."""

    symbol: str
    since: dt.date


@attrs.define
class Point:
    """Where."""

    x: int
    _secret: int = 3
    y: float = attrs.field(default=0.5, alias="why")
    z: int = attrs.field(init=False, default=1)


class Moved(msgspec.Struct, rename="camel", tag=True, omit_defaults=True):
    """A Struct with a tag."""

    moved_by: int
    how_far: float = 0.0


class Renamed(msgspec.Struct, tag="renamed", tag_field="kind", kw_only=True):
    """A Struct with a tag of another name."""

    old_name: str = msgspec.field(name="from")
    maybe: str | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True, omit_defaults=True):
    """A Struct that is an array."""

    first: int
    second: str = "x"


class Presence(TypedDict):
    """Who is there."""

    user: str
    state: Literal["here", "away"]
    device: NotRequired[str]


class Pair(NamedTuple):
    """Two of something."""

    left: int
    right: Colour


class Inner(pydantic.BaseModel):
    """A model in a model."""

    when: dt.timedelta = dt.timedelta(seconds=1)


class Model(pydantic.BaseModel):
    """A pydantic model."""

    id: uuid.UUID
    amount: decimal.Decimal = decimal.Decimal("1.5")
    inner: Inner = Inner()
    raw: bytes = b"x"
    alias: int = pydantic.Field(default=1, alias="ALIAS", description="under its name")
    kids: list[Model] = []
    hidden: int = pydantic.Field(default=1, exclude=True)
    shape: Literal["round"] | Halted | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        """Twice the alias."""
        return 2 * self.alias


class Aliased(pydantic.BaseModel):
    """A pydantic model that is dumped by alias."""

    model_config = pydantic.ConfigDict(serialize_by_alias=True, extra="allow")

    snake: int = pydantic.Field(default=1, serialization_alias="camelCase")


class Root(pydantic.RootModel[list[int]]):
    """A list with a name."""


@dataclasses.dataclass
class Page(Generic[T]):
    """A part of a list."""

    items: list[T]
    next: T | None = None


@dataclasses.dataclass
class Nested:
    """Models and unions within."""

    model: Inner
    either: Price | Point | Moved
    rows: tuple[Row, ...]
    by_name: Mapping[str, Halted | None]
    colours: dict[Colour, set[Level]]


@dataclasses.dataclass
class Book(Page[int]):
    """A class whose base has a type variable."""

    title: str = "x"


U = TypeVar("U")


@dataclasses.dataclass
class Shelf(Page[U], Generic[U]):
    """A class that hands its type variable on."""

    first: U | None = None


class Odd(pydantic.BaseModel):
    """A model with serializers, one of which says what it returns."""

    number: int = 1
    other: int = 2
    hidden: pydantic.SecretStr = pydantic.SecretStr("x")

    @pydantic.field_serializer("number")
    def _number(self, value):  # type: ignore[no-untyped-def]
        return str(value)

    @pydantic.field_serializer("other")
    def _other(self, value: int) -> str:
        return str(value)


class Opaque:
    """What JSON does not carry."""


PRICE = Price("ABC", decimal.Decimal("1.50"))
HALTED = Halted("ABC", dt.date(2026, 1, 2))
POINT = Point(1)

VALUES: Sequence[tuple[Any, Sequence[Any]]] = (
    (None, [None]),
    (bool, [True, False]),
    (int, [0, -1]),
    (float, [1.5, 2]),
    (str, ["text", "", "12"]),
    (bytes, [b"text"]),
    (bytearray, [bytearray(b"text")]),
    (memoryview, [memoryview(b"text")]),
    (dt.datetime, [NOW, NOW.replace(tzinfo=None)]),
    (dt.date, [NOW.date()]),
    (dt.time, [dt.time(1, 2, 3)]),
    (dt.timedelta, [dt.timedelta(days=1, seconds=3)]),
    (uuid.UUID, [uuid.UUID(int=1)]),
    (decimal.Decimal, [decimal.Decimal("1.10")]),
    (UserId, [UserId(7)]),
    (Annotated[int, "of something"], [7]),
    (Colour, list(Colour)),
    (Level, list(Level)),
    (Mood, list(Mood)),
    (Mixed, list(Mixed)),
    (Rights, [Rights.READ, Rights.READ | Rights.WRITE]),
    (Literal["a", 1, True, None], ["a", 1, True, None]),
    (Literal[Colour.RED, 2], [Colour.RED, 2]),
    (Optional[int], [1, None]),  # noqa: UP045 -- the older form
    (Union[int, str, None], [1, "x", None]),  # noqa: UP007 -- the older form
    (list, [[1, "x"]]),
    (list[int], [[], [1]]),
    (Sequence[str], [["x"], ("y",)]),
    (set[int], [{1}]),
    (frozenset[Colour], [frozenset([Colour.RED])]),
    (tuple, [(1, "x")]),
    (tuple[int, ...], [(), (1, 2)]),
    (tuple[int, str], [(1, "x")]),
    (tuple[()], [()]),
    (dict, [{"x": 1}]),
    (dict[str, int | None], [{"x": 1, "y": None}]),
    (Mapping[int, str], [{1: "x"}]),
    (OrderedDict[str, int], [OrderedDict(x=1)]),
    (Counter[str], [Counter("xx")]),
    (Price, [PRICE, dataclasses.replace(PRICE, maybe=3, start=0)]),
    (Halted, [HALTED]),
    (Point, [POINT]),
    (Moved, [Moved(1), Moved(1, 2.5)]),
    (Renamed, [Renamed(old_name="x"), Renamed(old_name="x", maybe="y")]),
    (Row, [Row(1), Row(1, "y")]),
    (Moved | Renamed | Row, [Moved(1), Renamed(old_name="x"), Row(1)]),
    (
        Presence,
        [
            {"user": "ann", "state": "here"},
            {"user": "bob", "state": "away", "device": "phone"},
        ],
    ),
    (Pair, [Pair(1, Colour.BLUE)]),
    (
        Model,
        [
            Model(id=uuid.UUID(int=1)),
            Model(id=uuid.UUID(int=1), kids=[Model(id=uuid.UUID(int=2))], ALIAS=3),
            Model(id=uuid.UUID(int=1), shape="round"),
            Model(id=uuid.UUID(int=1), shape=HALTED),
        ],
    ),
    (Aliased, [Aliased(), Aliased.model_validate({"snake": 2, "more": "x"})]),
    (Root, [Root([1, 2])]),
    (Page[int], [Page([1]), Page([1], 2)]),
    (Page[Price], [Page([PRICE], PRICE)]),
    (Book, [Book([1])]),
    (Shelf[int], [Shelf([1])]),
    (Odd, [Odd()]),
    (
        Nested,
        [
            Nested(
                model=Inner(),
                either=POINT,
                rows=(Row(1),),
                by_name={"x": HALTED, "y": None},
                colours={Colour.RED: {Level.LOW}},
            )
        ],
    ),
)

# Types that all the routes below share.
SHARED = ("Halted", "Price")


def typed_table() -> SSERouteTableDef:
    """Return a table of routes of every form, with types and without."""
    table = SSERouteTableDef()

    @table.sse_route("/market/{symbol}", events={"price": Price, "halted": Halted})
    async def market(request: web.Request) -> AsyncIterator[Price | Halted | str]:
        """Prices of one symbol.

        They are those of yesterday.
        """
        yield PRICE
        yield HALTED
        yield "closed"

    @table.sse_route("/rooms/{room}", events={"message": Model, "presence": Presence})
    async def room(request: web.Request) -> Channels:
        """A room."""
        return Channels("room")

    @table.sse_route("/levels", shared=True)
    async def levels(run: SharedRun) -> AsyncIterator[Level | None]:
        yield None
        yield Level.LOW

    @table.sse_route("/anything", methods=("GET", "POST"))
    async def anything(request: web.Request):  # type: ignore[no-untyped-def]
        yield ServerSentEvent({"a": 1}, event="own")

    @table.sse_route("/files/{year:\\d{4}}/{path:.+}", name="all.files")
    async def files(request: web.Request) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("x")

    @table.sse_route("/secret", client=False)
    async def secret(request: web.Request) -> AsyncIterator[Opaque]:
        yield Opaque()

    @table.sse_route("/quiet", control_events=False, methods=("POST",))
    async def quiet(request: web.Request) -> AsyncIterator[Opaque | dict[str, Any]]:
        yield {}

    return table
