"""The log in Redis: what is kept and forgotten there, and what is read when it is due.

Law: what is small here by a setting or a patch is only smaller than in use; the code
that runs is the same.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from aiohttp_sse_routes.errors import LeaseLost, StoreUnavailable
from aiohttp_sse_routes.logs.entry import Bounds, Entry, Fence, Lineage
from aiohttp_sse_routes.logs.redis import ear, given, missed, watch
from aiohttp_sse_routes.logs.redis.ear import Ear
from aiohttp_sse_routes.logs.redis.given import Given
from aiohttp_sse_routes.logs.redis.missed import Missed
from aiohttp_sse_routes.logs.redis.wire import Server
from aiohttp_sse_routes.logs.store import Store

from .redis_server import RedisServer, needs_redis
from .redis_team import Team, put_at_last, texts
from .stores import Recorder, Worker, eventually, given_all, put, read_all

pytestmark = [needs_redis, pytest.mark.timeout(60)]

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = int(os.environ.get("SSE_SEEDS", "6"))


def key(store: Store, rest: str) -> str:
    """Return the name of a key of the store's log."""
    namespace: str = getattr(store, "namespace")  # noqa: B009
    return f"{{{namespace}}}:{rest}"


async def test_a_quiet_channel_goes(tmp_path: Path) -> None:
    """The entries of a quiet channel go by their age; its newest number stays known.

    Its bytes are counted from nothing when it is published to again.
    """
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, max_age=0.2) as team:
            store = await team.open()
            old = await put(store, "c", "1", "x" * 100)
            stream = key(store, "c:c")
            assert server.command("EXISTS", stream) == b":1\r\n"
            await eventually(lambda: server.command("EXISTS", stream) == b":0\r\n")
            assert ([], {"c": old.last}) == await read_all(store, ["c"])
            assert ([], {}) == await read_all(store, ["c"], old.last)
            bounds = Bounds(max_age=0.2, max_bytes=60)
            new = await put(store, "c", "2", "3", bounds=bounds)
            entries, floors = await read_all(store, ["c"])
            assert (["2", "3"], {"c": old.last}) == (texts(entries), floors)
            assert [old.last, new.first] == [entry.prev for entry in entries]


async def test_what_is_too_old_is_not_read(tmp_path: Path) -> None:
    """What is over its age, and still in the stream, is gone for who reads."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.open(), await team.open(max_age=0.1)
            done = await put(one, "c", "1", "2")
            await asyncio.sleep(0.15)
            entries, floors = await read_all(one, ["c"])
            assert (["1", "2"], {}) == (texts(entries), floors)
            assert ([], {"c": done.last}) == await read_all(two, ["c"])
            assert done.last == await two.newest(["c"], 5, done.last)
            new = await put(two, "c", "3")
            entries, floors = await read_all(one, ["c"])
            assert (["3"], {"c": done.last}) == (texts(entries), floors)
            assert new.first - 1 == await one.newest(["c"], 5, new.last)


async def test_forgotten_channels(tmp_path: Path) -> None:
    """Of channels that are empty so many are known; of the others anything may be gone.

    Those that hold something are never forgotten.
    """
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, max_channels=10) as team:
            brief = await team.open(max_age=0.05)
            store = await team.open()
            kept = await put(store, "kept", "1")
            seqs = [(await put(brief, f"c{turn}", "x")).last for turn in range(30)]
            await asyncio.sleep(0.1)
            await put(store, "last", "1")
            assert server.command("ZCARD", key(store, "l")) == b":32\r\n"
            await put(store, "kept", "2")
            await put(store, "more", "1")
            assert server.command("ZCARD", key(store, "l")) == b":11\r\n"
            assert server.command("HLEN", key(store, "n")) == b":11\r\n"
            names = [f"c{turn}" for turn in range(30)]
            _, floors = await read_all(store, [*names, "kept", "never"])
            # Of c22 to c29 it is exact; before, and of what never was, c21 is the word.
            forgotten = seqs[21]
            expected = {f"c{turn}": forgotten for turn in range(22)}
            expected |= {f"c{turn}": seqs[turn] for turn in range(22, 30)}
            assert expected | {"never": forgotten} == floors
            assert {} == (await read_all(store, ["c3", "never"], forgotten))[1]
            new = await put(store, "c3", "y")
            entries, floors = await read_all(store, ["c3", "kept"], kept.first - 1)
            # For its sake another one was forgotten.
            assert {"c3": seqs[22]} == floors
            assert [seqs[22]] == [e.prev for e in entries if e.seq == new.first]


@pytest.mark.parametrize("channels", [3, 1200])
async def test_much_is_missed(
    tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was missed is handed on in order, however many channels it is in."""
    monkeypatch.setattr(watch, "_CHECK", 0.2)
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.workers(2)
            begin = await put(one.store, "c0", "begin")
            for worker in (one, two):
                await given_all(worker, begin.last)
            with monkeypatch.context() as deaf:
                deaf.setattr(Ear, "_hear", lambda ear, message: None)
                done = await asyncio.gather(
                    *(put(one.store, f"c{t % channels}", str(t)) for t in range(3000))
                )
                for worker in (one, two):
                    await given_all(worker, done[-1].last)
            for worker in (one, two):
                entries = worker.recorder.entries
                assert ["begin", *map(str, range(3000))] == texts(entries)
                last: dict[str, int] = {}
                for entry in entries:
                    assert entry.prev == last.get(entry.channel, 0)
                    last[entry.channel] = entry.seq


async def test_what_is_trimmed_meanwhile_is_told_exactly(tmp_path: Path) -> None:
    """A floor above what was to be read is told as it is: below it may be nothing."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, max_events=3) as team:
            store = await team.open()
            first = await put(store, "b", "1", "2")
            remote = store._remote  # type: ignore[attr-defined]
            status = await remote.status()
            last = await put(store, "a", *"abcdef")
            told: list[Mapping[str, int]] = []
            missed = Missed(remote, status, first.first - 1, told.append)
            found: list[Entry] = []
            while (page := await missed.more()) is not None:
                found += page
            assert {("a", last.first + 2)} == {item for t in told for item in t.items()}
            assert ["1", "2", "d", "e", "f"] == texts(found)
            assert last.last == missed.place


async def test_more_is_missed_than_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too much the oldest is left out, and ``prev`` tells; no channel is."""
    monkeypatch.setattr(watch, "_CHECK", 0.2)
    monkeypatch.setattr(missed, "_MOST", 20_000)
    monkeypatch.setattr(missed, "_TOGETHER", 4)
    monkeypatch.setattr(missed, "_PAGE", 4_000)
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, timeout=1.0) as team:
            writer = await team.open()
            (one,) = await team.workers(1)
            await put(writer, "c0", "begin")
            await given_all(one, await writer.head())
            with monkeypatch.context() as deaf:
                deaf.setattr(Ear, "_hear", lambda ear, message: None)
                for turn in range(30):
                    await put(writer, f"c{turn % 20}", *["x" * 90] * 20)
                await given_all(one, await writer.head())
            entries = one.recorder.entries
            assert {f"c{turn}" for turn in range(20)} == {e.channel for e in entries}
            assert 100 < len(entries) < 500
            seen: dict[str, int] = {}
            holes = 0
            for entry in entries:
                holes += entry.prev != seen.get(entry.channel, 0)
                seen[entry.channel] = entry.seq
            assert holes
            for name, last in seen.items():
                all_of, _ = await read_all(writer, [name])
                assert last == all_of[-1].seq


async def test_more_is_heard_than_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that are too many to be kept are read from the log, all in order."""
    monkeypatch.setattr(ear, "_HEARD", 300)
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            done = await asyncio.gather(
                *(put(one.store, "c", str(turn)) for turn in range(900))
            )
            await given_all(one, done[-1].last)
            assert [*map(str, range(900))] == texts(one.recorder.entries)


def test_what_is_heard_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of messages that nobody takes only the newest are kept."""
    monkeypatch.setattr(ear, "_HEARD", 1000)
    listens = Ear(Server("redis://127.0.0.1", 1), b"c", lambda: None)
    for turn in range(95):
        listens._hear(b"%100d" % turn)
        assert listens._size <= 1000
    assert [b"%100d" % turn for turn in range(90, 95)] == listens.take()
    assert [] == listens.take()


async def test_a_backlog_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    """While a long backlog is handed on, other tasks have their turns."""

    class Counting(Recorder):
        now = most = 0

        def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
            super().on_entries(entries, blocks)
            self.now += len(entries)
            self.most = max(self.most, self.now)

    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, max_events=50_000) as team:
            writer, recorder = await team.open(), Counting()
            await team.open(recorder)
            publishing = asyncio.gather(
                *(put(writer, "c", *["x" * 50] * 1000) for _ in range(20))
            )
            while len(recorder.entries) < 20_000:
                recorder.now = 0
                await asyncio.sleep(0)
            await publishing
            assert 20_000 == len(recorder.entries)
            assert recorder.most <= 400


async def test_a_follower_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of who follows is logged, and following goes on behind it."""

    class Failing(Recorder):
        def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
            super().on_entries(entries, blocks)
            if len(self.entries) == 1:
                raise ValueError("a follower's own")

    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            recorder = Failing()
            store = await team.open(recorder)
            await put(store, "c", "1")
            await eventually(lambda: texts(recorder.entries) == ["1"])
            await put(store, "c", "2", "3")
            await eventually(lambda: texts(recorder.entries) == ["1", "2", "3"])
            assert len(recorder.lineages) == 1
    assert caplog.text.count("ValueError: a follower's own") == 1


async def test_a_channel_of_other_bounds(tmp_path: Path) -> None:
    """A channel that is given bounds of its own has them in memory and in Redis."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            two = Bounds(max_events=2)
            for turn in range(5):
                await put(one.store, "two", str(turn), bounds=two)
                await put(one.store, "all", str(turn))
            head = await one.store.head()
            await given_all(one, head)
            for name, kept in (("two", ["3", "4"]), ("all", ["0", "1", "2", "3", "4"])):
                entries, _ = await read_all(one.store, [name])
                assert kept == texts(entries)
                blocks, _ = one.store.tail.after([name], 0, head, 1 << 30)
                assert len(kept) == len(blocks)


async def test_a_lease_is_never_another_after_all_is_lost(tmp_path: Path) -> None:
    """Where Redis has forgotten a lease, the old number is nobody's any more."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            store = await team.open()
            numbers = []
            for turn in range(4):
                held = await store.lease("l", f"me{turn}", 60, wanted=True)
                assert held.number is not None
                assert held.wanted == 0
                numbers.append(held.number)
                await put(store, "c", "x", fence=Fence("l", held.number))
                if turn % 2:
                    await store.release(Fence("l", held.number))
                else:
                    server.command("FLUSHALL")
            assert numbers == sorted(set(numbers))
            for number in numbers:
                with pytest.raises(LeaseLost):
                    await put(store, "c", "x", fence=Fence("l", number))


async def test_a_repetition_over_a_restart(tmp_path: Path) -> None:
    """A key that published before a restart does not publish after it."""
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(server.url, tmp_path, wait=20) as team:
            store = await team.open()
            first = await put(store, "c", "1", idempotency_key="k")
            assert not first.repeated
            server.restart()
            again = await put(store, "c", "1", idempotency_key="k")
            assert first._replace(repeated=True) == again
            other = await put(store, "d", "1", idempotency_key="k")
            assert not other.repeated


def test_what_was_given_out() -> None:
    """A loss is claimed for what a fork has cut off of an ended generation."""
    given = Given()
    given.note("g1", "a", 5)
    given.note("g1", "a", 4)
    given.note("g1", "b", 9)
    given.note("g1", "c", 3)
    given.note("g2", "a", 100)
    assert {} == given.lost(Lineage("g1"))
    assert {"a": 5, "b": 9} == given.lost(Lineage("g2", {"g1": 4}))
    assert {} == given.lost(Lineage("g2", {"g1": 4}))
    assert {"a": 100} == given.lost(Lineage("g3", {"g1": 4, "g2": 99}))


def test_what_was_given_out_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channels that were quiet longest are forgotten, and old generations."""
    monkeypatch.setattr(given, "_MOST", 2)
    memory = Given()
    for channel, seq in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        memory.note("g0", channel, seq)
    assert {"a": 3, "c": 4} == memory.lost(Lineage("g", {"g0": 0}))
    for turn in range(6):
        memory.note(f"g{turn}", "a", 1)
    forks = {f"g{turn}": 0 for turn in range(2)}
    assert {} == memory.lost(Lineage("g", forks))


@pytest.mark.parametrize("turn", range(SEEDS))
async def test_any_order_of_troubles(tmp_path: Path, turn: int) -> None:
    """Whatever is cut, paused or restarted, and when: each event once, in order.

    Two workers publish, each is followed; the Redis keeps its data. In the end each
    has been given all that is in the log, everything that was published for certain is
    there, and nobody was told a loss or a reset.
    """
    seed = SEED + turn
    print(f"SSE_SEED={seed}")  # noqa: T201 -- to run it again
    rng = random.Random(seed)
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(
            server.url,
            tmp_path,
            timeout=0.5,
            wait=rng.choice([0, 20]),
            max_events=10**6,
        ) as team:
            workers = await team.workers(2)
            sure: list[str] = []
            stop = asyncio.Event()

            async def publish(worker: Worker, name: str) -> None:
                count = 0
                while not stop.is_set():
                    count += 1
                    words = [f"{name}.{count}.{n}" for n in range(rng.randint(1, 4))]
                    try:
                        await put(worker.store, f"c{rng.randint(0, 5)}", *words)
                        sure.extend(words)
                    except StoreUnavailable:
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01]))

            writers = [
                asyncio.create_task(publish(worker, f"{index}{part}"))
                for index, worker in enumerate(workers)
                for part in "ab"
            ]
            for _ in range(8):
                await asyncio.sleep(rng.uniform(0, 0.1))
                await trouble(server, rng)
            stop.set()
            await asyncio.gather(*writers)
            await put_at_last(workers[0], "end", "end")
            head = await workers[1].store.head()
            names = [*(f"c{n}" for n in range(6)), "end"]
            entries, floors = await read_all(workers[0].store, names)
            assert {} == floors
            assert set(sure) <= set(texts(entries))
            assert len(texts(entries)) == len(set(texts(entries)))
            for worker in workers:
                await given_all(worker, head)
                assert entries == worker.recorder.entries
                assert [] == worker.recorder.lost
                assert not any(reset for _, reset, _ in worker.recorder.lineages[1:])


async def trouble(server: RedisServer, rng: random.Random) -> None:
    """Do something to *server* that a log has to live with."""
    match rng.randrange(5):
        case 0:
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
        case 1:
            server.command("CLIENT", "KILL", "TYPE", "normal")
        case 2:
            server.pause()
            await asyncio.sleep(rng.choice([0.05, 0.7]))
            server.resume()
        case 3:
            server.restart()
        case _:
            server.command("SCRIPT", "FLUSH")
