"""Ids: one recognisable format, opaque, safe in headers and URLs, and unguessable."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_sse_routes.cursor import (
    Cursor,
    has_our_format,
    is_end,
    new_generation,
    new_token,
    parse,
)

KIND = Literal["r", "l"]

cursors = st.one_of(
    st.builds(
        Cursor,
        st.just("r"),
        st.builds(new_token),
        st.integers(0, 10**16 - 1),
        st.booleans(),
    ),
    st.builds(
        Cursor,
        st.just("l"),
        st.builds(new_generation),
        st.integers(0, 10**16 - 1),
        st.booleans(),
    ),
)


@given(cursor=cursors)
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    """Every place comes back from its text, and says whether it is an end."""
    text = str(cursor)
    assert cursor == parse(text)
    assert has_our_format(text)
    assert cursor.end == is_end(text)
    assert text.startswith(cursor.prefix)


@given(cursor=cursors)
def test_ids_are_short_and_safe(cursor: Cursor) -> None:
    """An id has at most 128 bytes of the alphabet that headers and URLs let through."""
    assert re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", str(cursor), re.ASCII)


@given(cursor=cursors, drawn=st.data())
def test_an_id_that_was_changed_in_one_place_is_no_end_by_accident(
    cursor: Cursor, drawn: st.DataObject
) -> None:
    """Only the full format counts: what is cut or padded is not ours."""
    text = str(cursor)
    padding = drawn.draw(st.sampled_from([" ", "\n", "x", ".", "\0", "é"]))
    for changed in (text + padding, padding + text, text + ".end.end"):
        assert parse(changed) is None
        assert not is_end(changed)
        assert not has_our_format(changed)


TOKEN = "A" * 22


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "garbage",
        "sse1",
        "sse1.r",
        f"sse1.r.{TOKEN}",
        f"sse1.r.{TOKEN}.",
        f"sse1.r.{TOKEN}.x",
        f"sse1.r.{TOKEN}.-1",
        f"sse1.r.{TOKEN}.1_0",
        f"sse1.r.{TOKEN}.٣",
        f"sse1.r.{TOKEN}.12345678901234567",
        f"sse1.r.{TOKEN[1:]}.1",
        f"sse1.r.{TOKEN}A.1",
        f"sse1.x.{TOKEN}.1",
        f"sse2.r.{TOKEN}.1",
        f"SSE1.r.{TOKEN}.1",
        f"sse1.l.{TOKEN}.1",
        "sse1.l.abc.1",
        "sse1.l.ABCDEF01.1",
        "x.end",
        ".end",
        f"sse1.r.{TOKEN}.end",
        f"sse1.r.{TOKEN}.1.END",
        f"sse1.r.{TOKEN}.1.end ",
    ],
)
def test_what_is_not_our_format(text: str) -> None:
    """Anything else is somebody else's id, and never an end."""
    assert parse(text) is None
    assert not has_our_format(text)
    assert not is_end(text)


def test_no_id_is_no_place() -> None:
    """A request without an id names no place."""
    assert parse(None) is None
    assert not is_end(None)


@pytest.mark.parametrize("new", [new_token, new_generation])
def test_names_are_not_given_twice(new: type) -> None:
    """A run's token and a log's generation are new each time."""
    assert 1000 == len({new() for _ in range(1000)})


def test_a_token_has_128_bits() -> None:
    """A run's token is as long as 16 random bytes are in base64."""
    assert {22} == {len(new_token()) for _ in range(100)}
