"""The newest part of a log in memory: it answers as lists do, and stays bounded."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from aiohttp_sse_routes.logs import tail as module
from aiohttp_sse_routes.logs.entry import Bounds, Entry
from aiohttp_sse_routes.logs.tail import Tail

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = int(os.environ.get("SSE_SEEDS", "50"))

AGE = 64.0  # so that a mark of time is a second


class Item(NamedTuple):
    """An entry that a model holds."""

    seq: int
    prev: int
    block: bytes
    lines: bytes
    key: str | None


@dataclass
class Channel:
    """What a model holds of one channel, and knows of what it holds no more."""

    ring: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    floor: int = 0
    head: int = 0
    lost: int | None = None  # known since the first key

    @property
    def held(self) -> list[Item]:
        """All of it, in order."""
        return self.kept + self.ring

    def newest_of(self, key: str) -> int:
        """Return the newest number of *key*."""
        return max(item.seq for item in self.held if item.key == key)

    def pop(self) -> None:
        """Let the oldest of the ring leave it."""
        item = self.ring[0]
        newest = item.key is not None and self.newest_of(item.key) == item.seq
        del self.ring[0]
        self.floor = item.seq
        if self.lost is None:
            return
        if newest:
            self.kept.append(item)
        elif item.key is None:
            self.lost = item.seq

    def lose(self) -> None:
        """Let the oldest that is kept beside the ring go."""
        assert self.lost is not None
        self.lost = max(self.lost, self.kept.pop(0).seq)


class Model:
    """What a tail is to be, without anything clever."""

    def __init__(self, bounds: Bounds, total: int) -> None:
        self.bounds = bounds
        self.total = total
        self.head = 0
        self.channels: dict[str, Channel] = {}
        self.seen: list[int] = []  # the head at each mark of time
        self.marks: list[float] = []

    def channel(self, name: str) -> Channel:
        """Return what is known of *name*."""
        return self.channels.setdefault(name, Channel())

    @property
    def nbytes(self) -> int:
        """The bytes of all blocks."""
        return sum(
            len(item.block)
            for channel in self.channels.values()
            for item in channel.held
        )

    def add(self, entry: Entry) -> bytes:
        """See `Tail.add`."""
        name, seq = entry.channel, entry.seq
        block = b"id: sse1.l.abcdefgh.%d\n%b" % (seq, entry.lines)
        channel = self.channel(name)
        if not channel.held or entry.prev > channel.head:
            self.channels[name] = channel = Channel(floor=entry.prev)
        channel.ring.append(Item(seq, entry.prev, block, entry.lines, entry.key))
        channel.head = self.head = seq
        if entry.key is not None:
            if channel.lost is None:
                channel.lost = channel.floor
            channel.kept = [item for item in channel.kept if item.key != entry.key]
        while self.over(channel.ring) and len(channel.ring) > 1:
            channel.pop()
            while self.over(channel.kept):
                channel.lose()
        while self.nbytes > self.total and self.oldest()[0] != seq:
            self.drop(self.oldest()[0])
        return block

    def over(self, items: list[Item]) -> bool:
        """Return whether *items* are more than a channel may hold."""
        most = self.bounds.max_bytes
        return len(items) > self.bounds.max_events or (
            most is not None and sum(len(item.block) for item in items) > most
        )

    def oldest(self) -> tuple[int, str]:
        """Return the oldest entry of all, and its channel."""
        return min((c.held[0].seq, n) for n, c in self.channels.items() if c.held)

    def drop(self, through: int) -> None:
        """Let all through *through* go."""
        for channel in self.channels.values():
            while channel.ring and channel.ring[0].seq <= through:
                channel.pop()
                while self.over(channel.kept):
                    channel.lose()
            while channel.kept and channel.kept[0].seq <= through:
                channel.lose()
            if not channel.held:
                channel.lost = None

    def expire(self, now: float) -> None:
        """See `Tail.expire`: what was there at a mark of time is as old as that."""
        self.marks.append(now)
        self.seen.append(self.head)
        old = [
            head
            for mark, head in zip(self.marks, self.seen, strict=True)
            if now - mark >= self.bounds.max_age
        ]
        if old:
            self.drop(old[-1])

    def between(self, names: list[str], place: int, through: int) -> list[Item]:
        """Return what the rings of *names* hold, in order."""
        return sorted(
            item
            for name in names
            for item in self.channel(name).ring
            if place < item.seq <= through
        )

    def check_after(
        self,
        names: list[str],
        place: int,
        through: int,
        limit: int,
        found: tuple[list[bytes], int],
    ) -> None:
        """Check what `Tail.after` has *found*: all that fits, and no place too far."""
        items = self.between(names, place, through)
        blocks = [items.pop(0).block] if items else []
        last = self.seq_of(blocks[-1]) if blocks else through
        while items and sum(map(len, blocks)) + len(items[0].block) <= limit:
            last = items[0].seq
            blocks.append(items.pop(0).block)
        assert blocks == found[0]
        assert found[1] == last or (found[1] == through and not items)

    @staticmethod
    def seq_of(block: bytes) -> int:
        """Return the number that is in the id of *block*."""
        return int(block.split(b"\n")[0].rpartition(b".")[2])

    def newest(self, names: list[str], count: int, through: int) -> int:
        """See `Tail.newest`."""
        items = self.between(names, -1, through)
        return items[-count:][0].seq - 1 if items and count else through

    def conflated(
        self, name: str, place: int, through: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        """See `Tail.conflated`."""
        channel = self.channel(name)
        found = [
            (item.seq, item.block)
            for item in channel.held
            if place < item.seq <= through
            and (item.key is None or channel.newest_of(item.key) == item.seq)
        ]
        return found, channel.floor if channel.lost is None else channel.lost


NAMES = ["a", "b", "c"]


class Trial:
    """One random run: a tail, and the model that it is held against."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        most = rng.choice([None, None, 60, 150, 300])
        bounds = Bounds(rng.choice([1, 2, 4, 8]), AGE, most)
        total = rng.choice([100, 300, 800, 1 << 20])
        self.tail = Tail(bounds, max_total_bytes=total)
        self.tail.begin("sse1.l.abcdefgh.", 0, reset=True)
        self.model = Model(bounds, total)
        self.newest = dict.fromkeys(NAMES, 0)
        self.now = 0.0

    def step(self) -> None:
        """Add, or let time pass; what is known without asking for it is right."""
        if self.rng.random() < 0.2:
            self.now += self.rng.randrange(1, 30)
            self.tail.expire(self.now)
            self.model.expire(self.now)
        else:
            self.add()
        assert self.model.head == self.tail.head
        assert self.model.nbytes == self.tail.nbytes
        for name in NAMES:
            assert self.model.channel(name).floor == self.tail.floor(name)
            assert self.newest[name] == self.tail.last(name)

    def add(self) -> None:
        """Add an entry, perhaps behind some, its channel's too, that are not seen."""
        rng, name = self.rng, self.rng.choice(NAMES)
        seq, prev = self.tail.head + rng.choice([1, 1, 1, 2, 5]), self.newest[name]
        if rng.random() < 0.1:
            prev, seq = seq, seq + rng.choice([1, 3])
        lines = b"x" * rng.choice([0, 1, 20, 60]) + b"\n"
        key = rng.choice([None, None, "k", "l", "m", "n", "o"])
        entry = Entry(seq, prev, name, lines, key)
        self.newest[name] = seq
        assert self.model.add(entry) == self.tail.add(entry)

    def ask(self) -> None:
        """Ask each question, from any place to any other."""
        rng, tail, model = self.rng, self.tail, self.model
        names = rng.sample([*NAMES, "none"], rng.randrange(5))
        low = max(0, tail.head - 25)
        place, through = sorted(rng.choices(range(low, tail.head + 2), k=2))
        limit = rng.choice([0, 25, 30, 60, 100, 200, 400])
        found = tail.after(names, place, through, limit)
        model.check_after(names, place, through, limit, found)
        count = rng.randrange(12)
        assert model.newest(names, count, through) == tail.newest(names, count, through)
        for name in names:
            assert model.conflated(name, place, through) == tail.conflated(
                name, place, through
            )
            assert [
                (item.seq, item.prev, item.lines, item.key)
                for item in model.between([name], place, through)
            ] == tail.items(name, place, through)


def test_a_tail_is_a_list_for_each_channel() -> None:
    """After anything was added, missed and expired it answers as lists do.

    What it holds, in bytes too; what is gone of each channel, exactly; pages of any
    channels; the newest, of all and by key.
    """
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    for number in range(SEEDS):
        trial = Trial(random.Random(f"{SEED} {number}"))
        for _ in range(50):
            trial.step()
            trial.ask()


def tail_of(*, total: int = 1 << 30, **bounds: Any) -> Tail:
    """Return an empty tail."""
    tail = Tail(Bounds(**bounds), max_total_bytes=total)
    tail.begin("sse1.l.abcdefgh.", 0, reset=True)
    return tail


def fill(tail: Tail, name: str, *sizes: int, key: str | None = None) -> None:
    """Add entries to *name*, with blocks of so many bytes at least."""
    for size in sizes:
        prev = tail.last(name)
        tail.add(Entry(tail.head + 1, prev, name, b"x" * size + b"\n", key))


def test_pages_join_over_many_channels() -> None:
    """However small the pages, the parts of many channels are merged without a hole."""
    tail = tail_of()
    for turn in range(300):
        fill(tail, f"c{turn * 7 % 11}", turn % 13)
    names = [f"c{number}" for number in range(11)]
    for limit in (1, 50, 90, 500, 10_000):
        place, found = 0, list[bytes]()
        while place < tail.head:
            blocks, place = tail.after(names, place, tail.head, limit)
            assert len(blocks) == 1 or sum(map(len, blocks)) <= limit
            found += blocks
        assert [Model.seq_of(block) for block in found] == list(range(1, 301))


def test_one_block_over_the_limit_ends_a_page() -> None:
    """Where it is all that a page holds, what comes behind it is not passed over."""
    tail = tail_of()
    fill(tail, "a", 500, 500)
    fill(tail, "b", 1)
    blocks, place = tail.after(["a", "b"], 0, 2, 100)
    assert ([1], 1) == ([Model.seq_of(block) for block in blocks], place)
    blocks, place = tail.after(["a", "b"], place, 2, 100)
    assert [2] == [Model.seq_of(block) for block in blocks]


def test_what_is_not_known_may_be_gone() -> None:
    """A log that was joined late: through there, and no further, something may be gone.

    A channel's first entry that is seen tells how far its own past reaches.
    """
    tail = Tail(Bounds(), max_total_bytes=1 << 20)
    tail.begin("sse1.l.abcdefgh.", 100, reset=True)
    assert (100, 100, 100) == (tail.head, tail.floor("c"), tail.last("c"))
    tail.add(Entry(101, 30, "c", b"\n"))
    assert (30, 101) == (tail.floor("c"), tail.last("c"))
    assert 100 == tail.floor("d")
    tail.add(Entry(102, 0, "d", b"\n"))
    assert 0 == tail.floor("d")


def test_a_hole_is_gone() -> None:
    """Entries that were never seen are as good as dropped, with all before them."""
    tail = tail_of()
    fill(tail, "c", 1, 1, key="k")
    tail.add(Entry(9, 7, "c", b"\n", "l"))
    assert (7, 9) == (tail.floor("c"), tail.last("c"))
    assert ([(9, 7, b"\n", "l")]) == tail.items("c", 0, 9)
    found, lost = tail.conflated("c", 0, 9)
    assert ([9], 7) == ([seq for seq, _ in found], lost)
    # So they are where nothing behind the hole has a key.
    tail.add(Entry(20, 15, "c", b"\n"))
    found, lost = tail.conflated("c", 0, 20)
    assert ([20], 15) == ([seq for seq, _ in found], lost)


def test_keys_go_with_their_channel() -> None:
    """Nothing is known of a channel's keys when nothing of the channel is left."""
    tail = tail_of()
    fill(tail, "c", 1, 1, key="k")
    tail.expire(0)
    tail.expire(1e9)
    fill(tail, "c", 1, key="l")
    found, lost = tail.conflated("c", 0, 3)
    assert ([3], 2) == ([seq for seq, _ in found], lost)


def test_a_full_channel_beside_an_empty_one() -> None:
    """Pages join where one channel has much and the other one has nothing yet."""
    tail = tail_of()
    fill(tail, "a", *[30] * 20)
    fill(tail, "b", 1)
    place, found = 0, list[int]()
    while place < 20:
        blocks, place = tail.after(["a", "b"], place, 20, 150)
        found += map(Model.seq_of, blocks)
    assert list(range(1, 21)) == found


def test_the_oldest_of_all_make_room() -> None:
    """Over the bound in all, the oldest entries go, whosoever they are."""
    tail = tail_of(total=1000)
    fill(tail, "a", 100, 100)
    fill(tail, "b", 100)
    fill(tail, "a", 100)
    assert 0 == tail.floor("a") == tail.floor("b")
    fill(tail, "c", 600)
    assert (1, 0, 0) == (tail.floor("a"), tail.floor("b"), tail.floor("c"))
    fill(tail, "c", 2000)
    assert (4, 3, 5) == (tail.floor("a"), tail.floor("b"), tail.floor("c"))
    assert 2000 < tail.nbytes < 2100, "the newest is there whatever its size"
    fill(tail, "d", 1)
    assert 6 == tail.floor("c")
    assert tail.nbytes < 100


def test_what_stands_in_for_what_is_gone_is_bounded_too() -> None:
    """The newest by key beside the ring count, by channel and in all, and they age."""
    tail = tail_of(max_events=10, max_bytes=1000, total=3000)
    for number in range(100):
        fill(tail, "c", 400, key=f"k{number}")
        assert tail.nbytes <= 2000
    assert 4 == len(tail.conflated("c", 0, tail.head)[0])
    fill(tail, "d", 2000)
    assert tail.nbytes <= 3000
    found, lost = tail.conflated("c", 0, tail.head)
    assert [99, 100] == [seq for seq, _ in found]
    assert 98 == lost
    tail.expire(0)
    tail.expire(1e9)
    assert 0 == tail.nbytes
    assert ([], 100) == tail.conflated("c", 0, tail.head)


def test_floors_outlive_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing left of a channel, its floor is exact; forgotten too, it is not too low.

    So many channels are remembered, those that went last.
    """
    monkeypatch.setattr(module, "_MAX_FLOORS", 50)
    tail = tail_of()
    for number in range(100):
        fill(tail, f"c{number}", 1)
    tail.expire(0)
    assert 0 == tail.floor("none")
    tail.expire(1e9)
    assert 0 == tail.nbytes
    assert [tail.floor(f"c{number}") for number in range(50, 100)] == list(
        range(51, 101)
    )
    assert {tail.floor(f"c{number}") for number in range(50)} == {50}
    assert 50 == tail.base == tail.floor("none") == tail.last("c3")
    fill(tail, "c3", 1)
    fill(tail, "c60", 1)
    assert (50, 61) == (tail.floor("c3"), tail.floor("c60"))
    # Those two are now the last that go.
    tail.expire(2e9)
    tail.expire(3e9)
    for number in range(48):
        fill(tail, f"d{number}", 1)
    tail.expire(4e9)
    tail.expire(5e9)
    assert (101, 102) == (tail.floor("c3"), tail.floor("c60"))
    assert 100 == tail.base


def test_an_age_is_kept_to_within_a_mark() -> None:
    """No entry goes before its age; each is gone by a mark and a tick after it."""
    age = 1000.0
    tail = tail_of(max_age=age)
    born: dict[int, float] = {}
    for now in range(0, 5000, 7):
        tail.expire(now)
        held = [seq for seq, *_ in tail.items("c", 0, tail.head)]
        assert held == [seq for seq in born if seq > tail.floor("c")]
        young = {seq for seq, then in born.items() if now - then <= age}
        assert young <= set(held)
        assert all(now - born[seq] <= age + age / 64 + 2 * 7 for seq in held)
        if now % 3 == 0:
            fill(tail, "c", 1)
            born[tail.head] = now
    assert len(tail._times) < 70, "marks of time take memory for ever"


def test_another_log_begins_anew() -> None:
    """After a reset nothing of the old log is left, nor known."""
    tail = tail_of()
    fill(tail, "c", 10, 10, key="k")
    tail.expire(0)
    tail.begin("sse1.l.zzzzzzzz.", 7, reset=True)
    assert (7, 7, 0) == (tail.head, tail.floor("c"), tail.nbytes)
    assert ([], 7) == tail.conflated("c", 0, 7)
    assert ([], 9) == tail.after(["c"], 0, 9, 1)
    assert b"id: sse1.l.zzzzzzzz.8\n\n" == tail.add(Entry(8, 3, "c", b"\n", "k"))
    assert 3 == tail.conflated("c", 0, 8)[1]


def test_a_log_that_goes_on_keeps_what_it_has() -> None:
    """A new generation that continues the old has other ids, and the same past."""
    tail = tail_of()
    fill(tail, "c", 1)
    tail.begin("sse1.l.zzzzzzzz.", 1, reset=False)
    tail.add(Entry(9, 1, "c", b"\n"))
    blocks, place = tail.after(["c"], 0, 9, 1000)
    assert ([b"id: sse1.l.abcdefgh.1\nx\n", b"id: sse1.l.zzzzzzzz.9\n\n"], 9) == (
        blocks,
        place,
    )


def test_a_channel_may_have_bounds_of_its_own() -> None:
    """They are its own from its first entry on, and those of no other."""
    tail = tail_of(max_events=2)
    for turn in range(1, 11):
        prev = tail.last("own")
        tail.add(Entry(turn * 2, prev, "own", b"\n"), Bounds(max_events=5))
        fill(tail, "c", 1)
    assert 5 == len(tail.items("own", 0, tail.head))
    assert 2 == len(tail.items("c", 0, tail.head))
