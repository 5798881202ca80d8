"""The words of a log: bounds and names that are right, places that mean something."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiohttp_sse_routes.cursor import Cursor, parse
from aiohttp_sse_routes.errors import ConfigurationError
from aiohttp_sse_routes.logs.entry import Bounds, Lineage, check_channel

LINEAGE = Lineage("presentgen", {"oldgen12": 100, "older123": 40})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sse1.l.presentgen.0", 0),
        ("sse1.l.presentgen.7", 7),
        ("sse1.l.presentgen.999999", 999999),
        ("sse1.l.oldgen12.100", 100),
        ("sse1.l.oldgen12.101", None),
        ("sse1.l.older123.40", 40),
        ("sse1.l.older123.41", None),
        ("sse1.l.unknown1.1", None),
        ("sse1.r.AAAAAAAAAAAAAAAAAAAAAA.2", None),
    ],
)
def test_a_place_is_one_of_what_is_left(text: str, place: int | None) -> None:
    """An old generation's place is one as far as that is continued, and no further."""
    cursor = parse(text)
    assert cursor is not None
    assert place == LINEAGE.place(cursor)


def test_a_lineage_writes_ids_that_it_reads() -> None:
    """The id of a place leads back to it."""
    assert Cursor("l", "presentgen", 12) == parse(LINEAGE.cursor(12))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_events": 0},
        {"max_events": -1},
        {"max_events": True},
        {"max_events": 2.0},
        {"max_events": None},
        {"max_bytes": 0},
        {"max_bytes": "1"},
        {"max_age": 0},
        {"max_age": -1.0},
        {"max_age": math.nan},
        {"max_age": True},
        {"max_age": None},
    ],
)
def test_bounds_are_checked(wrong: dict[str, Any]) -> None:
    """A bound that bounds nothing, or is no number, is told by its name."""
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}"):
        Bounds(**wrong)


def test_bounds_may_be_wide() -> None:
    """No bound in bytes, and none in time, can be asked for."""
    assert Bounds(1, math.inf, None) == Bounds(max_events=1, max_age=math.inf)


@pytest.mark.parametrize("name", ["a", "room:42", "ü" * 256, "x" * 512, "a b", "☃"])
def test_a_name_is_any_text(name: str) -> None:
    """Any text that is not too long names a channel."""
    assert name == check_channel(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ValueError),
        ("x" * 513, ValueError),
        ("ü" * 257, ValueError),
        ("\x01own", ValueError),
        ("a\nb", ValueError),
        ("\ud800", ValueError),
        (b"a", TypeError),
        (7, TypeError),
        (None, TypeError),
    ],
)
def test_what_cannot_be_a_name_is_refused(name: Any, error: type[Exception]) -> None:
    """The error names what was given, shortened where it is long."""
    with pytest.raises(error, match="channel") as caught:
        check_channel(name)
    assert len(str(caught.value)) < 150
