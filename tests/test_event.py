"""The event as a value: an invalid one cannot be made, and none can be changed."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from aiohttp_sse_routes import ServerSentEvent
from aiohttp_sse_routes.cursor import Cursor, new_generation, new_token

FIELDS = ("data", "event", "id", "retry", "comment")


def test_fields() -> None:
    """It has what it was given, and None elsewhere."""
    empty = ServerSentEvent()
    assert [None] * 5 == [getattr(empty, name) for name in FIELDS]
    full = ServerSentEvent([1], event="e", id="i", retry=5, comment="c")
    assert [[1], "e", "i", 5, "c"] == [getattr(full, name) for name in FIELDS]


def test_only_data_is_positional() -> None:
    """Everything but data is named where it is given."""
    with pytest.raises(TypeError):
        ServerSentEvent("data", "event")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize(
    "value",
    ["a\nb", "a\rb", "a\r\nb", "\0", "a\0b", "\n", "\ud800"],
    ids=["lf", "cr", "crlf", "nul", "inner-nul", "only-lf", "surrogate"],
)
def test_what_would_break_a_field_is_refused(name: str, value: str) -> None:
    """CR, LF and NUL would inject fields; a lone surrogate is no UTF-8."""
    with pytest.raises(ValueError, match=name):
        ServerSentEvent(1, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize(
    "value", ["x", " spaces ", "ünï 🎉", "\u2028", "a:b", "\ufeff"]
)
def test_other_text_is_taken_as_it_is(name: str, value: str) -> None:
    """What a field can carry is not changed."""
    event = ServerSentEvent(1, **{name: value})  # type: ignore[arg-type]
    assert value == getattr(event, name)


@pytest.mark.parametrize("name", ["sse-gap", "sse-", "sse-anything"])
def test_our_names_are_reserved(name: str) -> None:
    """A page can trust that an event named so is one of ours."""
    with pytest.raises(ValueError, match="reserved"):
        ServerSentEvent(1, event=name)
    ServerSentEvent(1, event=name.upper())


@pytest.mark.parametrize(
    "id",
    [
        str(Cursor("r", new_token(), 0)),
        str(Cursor("r", new_token(), 77, end=True)),
        str(Cursor("l", new_generation(), 5)),
        str(Cursor("l", new_generation(), 5, end=True)),
    ],
    ids=["run", "end of a run", "log", "end of a log"],
)
def test_an_id_of_our_format_is_refused(id: str) -> None:
    """A user's id is never taken for one that was made here."""
    with pytest.raises(ValueError, match="format"):
        ServerSentEvent(1, id=id)


def test_an_empty_id_is_refused() -> None:
    """It would erase the client's last event ID."""
    with pytest.raises(ValueError, match="id"):
        ServerSentEvent(1, id="")


@pytest.mark.parametrize("retry", [-1, 3.0, "3", True, False, [1]])
def test_retry_is_an_int_of_at_least_0(retry: Any) -> None:
    """A float, a bool, text or a negative number is a mistake."""
    with pytest.raises(ValueError, match="retry"):
        ServerSentEvent(1, retry=retry)


@pytest.mark.parametrize("retry", [0, 1, 3000, 10**12])
def test_retry(retry: int) -> None:
    """Any other int will do."""
    assert retry == ServerSentEvent(1, retry=retry).retry


@pytest.mark.parametrize("name", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [1, b"bytes", ["list"]])
def test_text_is_text(name: str, value: Any) -> None:
    """Only a str is text."""
    with pytest.raises(TypeError, match=name):
        ServerSentEvent(1, **{name: value})


def test_a_comment_holds_lines_but_no_nul() -> None:
    """A comment is split into lines; NUL is what engines disagree on."""
    assert "a\nb" == ServerSentEvent(comment="a\nb").comment
    with pytest.raises(ValueError, match="NUL"):
        ServerSentEvent(comment="a\0b")


@pytest.mark.parametrize("name", [*FIELDS, "other"])
def test_it_is_immutable(name: str) -> None:
    """Nothing of it can be set or deleted."""
    event = ServerSentEvent(1)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(event, name, "x")
    with pytest.raises(AttributeError, match="immutable"):
        delattr(event, name)


def test_equality() -> None:
    """Two are equal if all fields are, and then have one hash."""
    one = ServerSentEvent({"a": 1}, event="e", id="i", retry=1, comment="c")
    same = ServerSentEvent({"a": 1}, event="e", id="i", retry=1, comment="c")
    assert one == same
    assert hash(one) == hash(same)
    for name in FIELDS:
        values = {field: getattr(one, field) for field in FIELDS}
        values[name] = 2 if name == "retry" else "other"
        assert one != ServerSentEvent(**values)
    assert one != {"a": 1}


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_copies(again: Any) -> None:
    """A copy is equal."""
    event = ServerSentEvent({"a": [1]}, event="e", id="i", retry=1, comment="c")
    assert event == again(event)


def test_pickle() -> None:
    """It can be sent to another process."""
    event = ServerSentEvent({"a": [1]}, event="e", id="i", retry=1, comment="c")
    again = pickle.loads(pickle.dumps(event))
    assert event == again
    with pytest.raises(AttributeError):
        again.data = 2


def test_repr() -> None:
    """It shows what was given."""
    event = ServerSentEvent("x", event="e", retry=5)
    assert "ServerSentEvent('x', event='e', retry=5)" == repr(event)
    assert "ServerSentEvent(None)" == repr(ServerSentEvent())


def test_a_log_gives_it_out_with_its_place() -> None:
    """`ServerSentEvent.at` carries a cursor for its id, and changes nothing else."""
    place = str(Cursor("l", new_generation(), 5))
    event = ServerSentEvent("x", event="e", retry=5, comment="c")
    placed = ServerSentEvent.at(place, event)
    assert place == placed.id
    assert [None if n == "id" else getattr(event, n) for n in FIELDS] == [
        None if n == "id" else getattr(placed, n) for n in FIELDS
    ]
    assert event.id is None
