"""The bounded log: it answers as a plain list does, whatever was done to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_sse_routes.logs.memory import MemoryLog
from aiohttp_sse_routes.logs.ring import Lost, Ring


class Entry(NamedTuple):
    """One block with its number."""

    seq: int
    block: bytes


class Model:
    """What a ring is to be, without anything clever."""

    def __init__(self, start: int, max_events: int, max_bytes: int) -> None:
        self.entries: list[Entry] = []
        self.floor = self.head = start
        self.lost: Lost = "unknown"
        self.max_events = max_events
        self.max_bytes = max_bytes

    def append(self, seq: int, block: bytes) -> None:
        self.entries.append(Entry(seq, block))
        self.head = seq

    def trim(self, through: int | None) -> None:
        while len(self.entries) > 1 and (
            len(self.entries) > self.max_events or self.nbytes > self.max_bytes
        ):
            if through is not None and self.entries[0].seq > through:
                return
            self.floor, self.lost = self.entries.pop(0).seq, "expired"

    def clear(self, seq: int, lost: Lost) -> None:
        self.entries.clear()
        self.floor = self.head = seq
        self.lost = lost

    @property
    def nbytes(self) -> int:
        return sum(len(entry.block) for entry in self.entries)

    def after(self, place: int, through: int, limit: int) -> tuple[list[bytes], int]:
        blocks: list[bytes] = []
        for seq, block in self.entries:
            if not place < seq <= through:
                continue
            if blocks and sum(map(len, blocks)) + len(block) > limit:
                break
            blocks.append(block)
            place = seq
        return blocks, place

    def newest(self, count: int, through: int) -> int:
        seqs = [entry.seq for entry in self.entries if entry.seq <= through]
        before = seqs[: max(0, len(seqs) - count)]
        return before[-1] if before else self.floor

    def acknowledged(self, place: int, outstanding: int) -> int:
        written = [entry for entry in self.entries if entry.seq <= place]
        missing = 0
        while written and missing < outstanding:
            missing += len(written.pop().block)
        return written[-1].seq if written else self.floor

    def weight_after(self, place: int) -> tuple[int, int]:
        blocks = [entry.block for entry in self.entries if entry.seq > place]
        return len(blocks), sum(map(len, blocks))


_steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3), st.integers(1, 9)),
    st.tuples(st.just("trim"), st.none() | st.integers(0, 90), st.none()),
    st.tuples(st.just("clear"), st.integers(1, 3), st.just("restarted")),
)


@settings(deadline=None)
@given(
    start=st.integers(0, 5),
    max_events=st.integers(1, 6),
    max_bytes=st.integers(1, 40),
    steps=st.lists(_steps, max_size=60),
    drawn=st.data(),
)
def test_a_ring_is_a_list_with_bounds(
    start: int,
    max_events: int,
    max_bytes: int,
    steps: list[tuple[str, Any, Any]],
    drawn: st.DataObject,
) -> None:
    """After any appends, trims and clearings it answers each question as a list does.

    Numbers may leave holes, as in a log that channels share.
    """
    ring = Ring(start, max_events=max_events, max_bytes=max_bytes)
    model = Model(start, max_events, max_bytes)
    for number, (step, first, second) in enumerate(steps):
        if step == "append":
            block = bytes([number]) * second
            ring.append(model.head + first, block)
            model.append(model.head + first, block)
        elif step == "trim":
            ring.trim(first)
            model.trim(first)
        else:
            ring.clear(model.head + first, second)
            model.clear(model.head + first, second)
        assert len(model.entries) == len(ring)
        assert model.nbytes == ring.nbytes
        assert (model.floor, model.head, model.lost) == (
            ring.floor,
            ring.head,
            ring.lost,
        )
    numbers = st.integers(model.floor, model.head + 1)
    for _ in range(4):
        place, through = sorted((drawn.draw(numbers), drawn.draw(numbers)))
        limit, count = drawn.draw(st.integers(0, 60)), drawn.draw(st.integers(0, 8))
        assert model.after(place, through, limit) == ring.after(place, through, limit)
        assert model.newest(count, through) == ring.newest(count, through)
        assert model.acknowledged(place, limit) == ring.acknowledged(place, limit)
        assert model.weight_after(place) == ring.weight_after(place)


def test_many_entries_are_compacted_and_stay_right() -> None:
    """Dropping thousands from the front leaves the newest, and their numbers."""
    ring = Ring(0, max_events=100, max_bytes=1 << 20)
    for seq in range(1, 5001):
        ring.append(seq, b"%d" % seq)
        ring.trim()
    assert (100, 4900, 5000) == (len(ring), ring.floor, ring.head)
    assert ([b"%d" % n for n in range(4901, 5001)], 5000) == ring.after(
        4900, 5000, 1 << 20
    )
    assert len(ring._seqs) <= 300, "what was dropped takes memory for ever"


def test_the_newest_is_kept_however_large() -> None:
    """One entry over the bound in bytes is there for who comes back."""
    ring = Ring(0, max_events=5, max_bytes=10)
    ring.append(1, b"x")
    ring.append(2, b"y" * 1000)
    ring.trim()
    assert ([b"y" * 1000], 2) == ring.after(0, 2, 1)
    assert (1, "expired") == (ring.floor, ring.lost)


@pytest.mark.parametrize("outstanding", [1, 5, 1000])
def test_what_is_not_acknowledged_is_never_taken_for_it(outstanding: int) -> None:
    """A block of which the peer lacks one byte counts as not received."""
    ring = Ring(0, max_events=5, max_bytes=100)
    ring.append(1, b"12345")
    assert 0 == ring.acknowledged(1, outstanding)
    assert 1 == ring.acknowledged(1, 0)


def test_channels_share_one_sequence() -> None:
    """A number is a place in the whole log: no two channels give the same one."""
    log = MemoryLog()
    first = log.channel(max_events=5, max_bytes=100)
    second = log.channel(max_events=5, max_bytes=100)
    assert first.floor != second.floor
    seqs = [log.number() for _ in range(3)]
    assert sorted({first.floor, second.floor, *seqs}) == [1, 2, 3, 4, 5]


def test_a_new_log_is_another() -> None:
    """A log that begins anew has another name, so that old places are known as old."""
    assert MemoryLog().generation != MemoryLog().generation
