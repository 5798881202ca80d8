"""The course of a run that workers share: what its marks say of a place.

Law: values only; a table of courses, and what a client of each place is to be told.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aiohttp_sse_routes.logs.entry import Entry, Lineage
from aiohttp_sse_routes.streams.course import Course, Mark


def course_of(*kinds: str, floor: int = 0) -> Course:
    """Return a course with *kinds* at 10, 20, 30 and so on."""
    course = Course(Lineage("a" * 8), floor)
    for number, kind in enumerate(kinds, 1):
        course.add(Mark(kind, seq=10 * number))  # type: ignore[arg-type]
    return course


FOUND: list[tuple[Sequence[str], int, str | None, int, int | None]] = [
    ([], 5, None, 0, None),
    (["began"], 15, None, 0, None),
    (["began"], 5, None, 10, None),
    (["began", "broken"], 15, None, 0, None),
    (["began", "broken", "began"], 15, "restarted", 30, None),
    (["began", "broken", "began"], 25, "restarted", 30, None),
    (["began", "began"], 15, "restarted", 20, None),
    (["began", "stopped"], 15, "unknown", 0, None),
    (["began", "stopped", "began"], 15, "unknown", 0, None),
    (["began", "stopped", "began"], 25, "unknown", 30, None),
    (["began", "finished"], 15, None, 0, 20),
    (["began", "finished", "began"], 15, None, 0, 20),
    (["began", "finished", "began"], 25, None, 30, None),
    (["began", "began", "finished", "began"], 15, "restarted", 20, 30),
    (["began", "reconnect"], 15, None, 0, 20),
]


@pytest.mark.parametrize(("kinds", "place", "gap", "start", "over"), FOUND)
def test_what_has_happened_since_a_place(
    kinds: Sequence[str], place: int, gap: str | None, start: int, over: int | None
) -> None:
    """A place's run goes on, was broken, or is over, as the marks behind it say."""
    found = course_of(*kinds).find(place)
    assert gap == found.gap
    assert over == (found.over.seq if found.over is not None else None)
    assert start == found.start


def test_marks_that_are_gone() -> None:
    """A place before the newest mark that is gone is unknown; one behind it is not."""
    course = course_of(floor=7)
    assert "unknown" == course.find(6).gap
    assert None is course.find(7).gap
    assert "began" == course.state
    course.add(Mark("began", seq=9))
    assert "restarted" == course.find(8).gap


def test_a_course_that_grows_long() -> None:
    """It forgets the oldest marks, and knows through where it has."""
    course = course_of(*["began", "broken"] * 50)
    assert "unknown" == course.find(5).gap
    assert "unknown" == course.find(355).gap
    assert "restarted" == course.find(365).gap


def test_a_course_in_another_generation() -> None:
    """Marks behind a fork are forgotten, and all of them in a log that began anew."""
    course = course_of("began", "broken", "began")
    course.move(Lineage("b" * 8, {"a" * 8: 25}))
    assert "broken" == course.state
    assert 20 == course.last
    course.move(Lineage("c" * 8))
    assert None is course.state
    assert 0 == course.last


def test_a_mark_is_a_comment() -> None:
    """On the wire it would harm nobody; it says the same in every process."""
    for mark in (Mark("began"), Mark("reconnect", 7.5), Mark("refused", ref="ab12")):
        lines = mark.draft.lines
        assert lines.startswith(b": ")
        assert lines.endswith(b"\n\n")
        assert 2 == lines.count(b"\n")
        assert mark._replace(seq=3) == Mark.of(Entry(3, 0, "c", lines))
