"""What every store promises, tried at random against a plain list.

Law: the list has everything that was ever appended, and forgets nothing; what a store
retains has to be an end of it, channel by channel, and all before that told as gone.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from aiohttp_sse_routes.errors import LeaseLost
from aiohttp_sse_routes.logs.entry import Appended, Draft, Entry, Fence
from aiohttp_sse_routes.logs.store import Store

from .stores import NO_LIMIT, Make, Stores, check_page, given_all

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = int(os.environ.get("SSE_SEEDS", "8"))

STEPS = 60
HEAD = 64  # bytes that a store may add to the lines of an event
CHANNELS = ["a", "b", "c", "d"]
BOUNDS: list[dict[str, Any]] = [
    {},
    {"max_events": 1},
    {"max_events": 7},
    {"max_events": 30},
    {"max_events": 30, "max_bytes": 700},
    {"max_bytes": 3000},
]


class Model:
    """Everything that was ever appended, and what has to be retained of it."""

    def __init__(
        self, start: int, *, max_events: int = 1000, max_bytes: int | None = None
    ) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.start = start
        self.all: list[Entry] = []
        self.by_key: dict[tuple[str, str], Appended] = {}
        self.floors: dict[str, int] = {}

    @property
    def head(self) -> int:
        """The newest number."""
        return self.all[-1].seq if self.all else self.start

    def place(self, rng: random.Random) -> int:
        """Return any place: an entry's, or just before one."""
        places = [0, self.start, *(entry.seq for entry in self.all)]
        return max(0, rng.choice(places) - rng.randrange(2))

    def of(self, name: str) -> list[Entry]:
        """Return all entries of *name*."""
        return [entry for entry in self.all if entry.channel == name]

    def append(self, name: str, drafts: list[Draft], done: Appended) -> None:
        """Note what a store has appended."""
        assert done.first > self.head
        assert done.last == done.first + len(drafts) - 1
        own = self.of(name)
        prev = own[-1].seq if own else 0
        for seq, draft in enumerate(drafts, done.first):
            self.all.append(Entry(seq, prev, name, draft.lines, draft.key))
            prev = seq

    def retained(self, names: list[str]) -> list[Entry]:
        """Return what is held of *names*, by the floors that the store has told."""
        return [
            entry
            for entry in self.all
            if entry.channel in names and entry.seq > self.floors.get(entry.channel, 0)
        ]

    def learn(self, name: str, floor: int) -> None:
        """Take the store's word for what is gone of *name*, if that may be gone."""
        own = self.of(name)
        assert floor == 0 or floor in [entry.seq for entry in own]
        assert floor >= self.floors.get(name, 0), "what was gone is there again"
        self.floors[name] = floor
        held = [entry for entry in own if entry.seq > floor]
        if not own:
            return
        assert held, "the newest is gone"
        assert len(held) <= self.max_events
        more = [entry for entry in own if entry.seq >= floor]
        size = sum(len(entry.lines) for entry in held)
        if self.max_bytes is None:
            assert len(held) == min(len(own), self.max_events)
        else:
            assert len(held) == 1 or size <= self.max_bytes
            if floor and len(held) < self.max_events:
                added = sum(len(entry.lines) + HEAD for entry in more)
                assert added > self.max_bytes, "too much is gone"


class Trial:
    """One random run: workers on one log, and the list that they are held against."""

    def __init__(self, stores: list[Store], model: Model, rng: random.Random) -> None:
        self.stores = stores
        self.model = model
        self.rng = rng
        self.fences: list[Fence] = []
        self.valid: Fence | None = None

    @property
    def store(self) -> Store:
        """Any of the workers' stores."""
        return self.rng.choice(self.stores)

    async def step(self) -> None:
        """Do something."""
        steps = [self.append] * 6 + [self.read] * 5 + [self.newest] * 2 + [self.lease]
        await self.rng.choice(steps)()

    async def append(self) -> None:
        """Append, perhaps with a key that was used, or under a lease that was lost."""
        rng, model = self.rng, self.model
        name = rng.choice(CHANNELS)
        drafts = [self.draft() for _ in range(rng.choice([1, 1, 1, 2, 5, 50]))]
        key = rng.choice([None, None, f"k{rng.randrange(20)}"])
        fence = rng.choice([None, None, *self.fences[-3:]])
        work = self.store.append(name, drafts, idempotency_key=key, fence=fence)
        if fence is not None and fence != self.valid:
            with pytest.raises(LeaseLost):
                await work
            return
        done = await work
        known = None if key is None else model.by_key.get((name, key))
        if known is not None:
            assert done == known._replace(repeated=True)
            return
        assert not done.repeated
        model.append(name, drafts, done)
        if key is not None:
            model.by_key[name, key] = done
        page = await self.store.read([name], 0, done.last, limit=NO_LIMIT)
        model.learn(name, page.floors.get(name, 0))

    def draft(self) -> Draft:
        """Return a random event."""
        size = self.rng.choice([0, 3, 30, 300])
        key = self.rng.choice([None, "x", "y"])
        return Draft(b"data: %b\n\n" % (b"%d" % self.rng.randrange(10) * size), key)

    async def read(self) -> None:
        """Read from any place to any other, in pages."""
        rng, model = self.rng, self.model
        assert model.head == await self.store.head()
        names = rng.sample([*CHANNELS, "none"], rng.randrange(1, 6))
        after, through = sorted(model.place(rng) for _ in range(2))
        through = rng.choice([through, model.head])
        limit = rng.choice([1, 40, 400, 4000, NO_LIMIT])
        expected = [e for e in model.retained(names) if after < e.seq <= through]
        found: list[Entry] = []
        place = after
        while place < through or place == after:
            page = await self.store.read(names, place, through, limit=limit)
            check_page(page, names, place, through, limit)
            assert dict(page.floors) == {
                name: floor
                for name, floor in model.floors.items()
                if name in names and floor > place
            }
            found += page.entries
            if page.place == place:
                break
            place = page.place
        assert found == expected

    async def newest(self) -> None:
        """Read the newest of some channels."""
        rng, model = self.rng, self.model
        names = rng.sample([*CHANNELS, "none"], rng.randrange(1, 6))
        through = rng.choice([model.head, model.place(rng)])
        count = rng.choice([0, 1, 5, 50, 5000])
        place = await self.store.newest(names, count, through)
        expected = [e for e in model.retained(names) if e.seq <= through]
        page = await self.store.read(names, place, through, limit=NO_LIMIT)
        assert list(page.entries) == (expected[-count:] if count else [])

    async def lease(self) -> None:
        """Let another worker have the lease."""
        if self.valid is not None:
            await self.store.release(self.valid)
        holder = f"holder {len(self.fences)}"
        lease = await self.store.lease("l", holder, 600, wanted=True)
        assert lease.number is not None
        assert all(lease.number > fence.number for fence in self.fences)
        self.valid = Fence("l", lease.number)
        self.fences.append(self.valid)


def check_followed(given: list[Entry], model: Model) -> None:
    """Check that *given* is all, but for what was gone before it could be seen."""
    seqs = {entry.seq for entry in given}
    assert given == [entry for entry in model.all if entry.seq in seqs]
    assert seqs >= {entry.seq for entry in model.retained(CHANNELS)}


@pytest.mark.timeout(120)
async def test_a_store_is_a_list_with_bounds(make_store: Make, tmp_path: Path) -> None:
    """Whatever was appended by whom, each question is answered as by a list."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    for number in range(SEEDS):
        rng = random.Random(f"{SEED} {number}")
        bounds = rng.choice(BOUNDS)
        folder = tmp_path / str(number)
        folder.mkdir()
        stores = Stores(make_store, folder, **bounds)
        workers = await stores.workers(2)
        model = Model(await workers[0].store.head(), **bounds)
        trial = Trial([worker.store for worker in workers], model, rng)
        try:
            for _ in range(STEPS):
                await trial.step()
            for worker in workers:
                await given_all(worker, model.head)
                check_followed(worker.recorder.entries, model)
        except BaseException:
            print(f"SSE_SEED={SEED}, number {number}, {bounds}")  # noqa: T201
            raise
        finally:
            await stores.close()
