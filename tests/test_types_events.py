"""``events=`` takes any type: a class names what is yielded, every type is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, TypedDict

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    ServerSentEvent,
    SSERouteDef,
    SSERouteTableDef,
)

from .helpers import Served, app_of

Serve = Callable[[web.Application], Awaitable[Served]]

Symbol = NewType("Symbol", str)


@dataclass
class Price:
    """What it costs."""

    price: int


@dataclass
class Offer:
    """Who would buy it."""

    price: int


class Note(TypedDict):
    """A dict, at run time."""

    text: str


async def generator(request: web.Request) -> AsyncIterator[Any]:
    """Yield one of each kind."""
    for value in (Price(1), Offer(2), {"text": "x"}, "text", 5):
        yield value
    yield ServerSentEvent({"text": "y"}, event="note")


async def following(request: web.Request) -> Channels:
    """Follow a channel, behind a snapshot."""

    async def snapshot() -> AsyncIterator[Any]:
        for value in (Price(1), "text"):
            yield value

    return Channels("x", snapshot=snapshot)


async def names_of(served: Served, path: str, count: int) -> list[str]:
    """Return the names of the first *count* events."""
    async with served.stream(path) as stream:
        return [event.type for event in await stream.collect(count)]


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ({"deal": Price | Offer}, ["deal", "deal", "message", "message", "message"]),
        ({"p": Price, "n": Note}, ["p", "message", "message", "message", "message"]),
        (
            {"s": Symbol, "t": Annotated[str, "x"], "l": Literal["text"], "d": dict},
            ["message", "message", "d", "message", "message"],
        ),
        (
            {"nothing": None, "any": Any, "some": str | None, "list": list[int]},
            ["message", "message", "message", "some", "message"],
        ),
    ],
)
async def test_which_types_name(
    serve: Serve, events: dict[str, Any], names: list[str]
) -> None:
    """A class names what is yielded, a union each of its classes; else nothing does."""
    table = SSERouteTableDef()
    table.sse_route("/x", events=events)(generator)
    served = await serve(app_of(table))
    assert [*names, "note"] == await names_of(served, "/x", 6)


async def test_channels_may_have_two_events_of_one_type(serve: Serve) -> None:
    """There who publishes gives the name; what a snapshot yields has none then."""
    table = SSERouteTableDef()
    events = {"joined": str, "left": str, "price": Price}
    table.sse_route("/x", events=events)(following)
    served = await serve(app_of(table))
    async with served.stream("/x") as stream:
        assert ["price", "message"] == [e.type for e in await stream.collect(2)]
        await served.sse.publish("x", "ann", event="left")
        event = await stream.next()
        assert ("left", "ann") == (event.type, event.data)


@pytest.mark.parametrize(
    "events", [{"a": Price, "b": Price}, {"a": Price | Offer, "b": Offer}]
)
def test_a_generator_may_not(events: dict[str, Any]) -> None:
    """Of a generator a class has one name: with two, it could not be told which."""
    with pytest.raises(ConfigurationError, match="one type has two names"):
        SSERouteDef("/x", generator, events=events)


@pytest.mark.parametrize("value", [1, "Price", Price(1), [Price]])
def test_what_is_no_type(value: Any) -> None:
    """What is no type at all is an error where it is written."""
    with pytest.raises(ConfigurationError, match=r"'a' maps to .* not a type"):
        SSERouteDef("/x", generator, events={"a": value})
