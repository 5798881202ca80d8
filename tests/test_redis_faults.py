"""What Redis can do to its log, each with a real one: it says so, heals, loses nothing.

A publish that fails says why, in the words of who runs the Redis. Who follows stays, is
given everything afterwards, and is told a loss exactly where there is one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from aiohttp_sse_routes.errors import StoreError, StoreUnavailable
from aiohttp_sse_routes.logs.redis import RedisStore

from .redis_server import Proxy, RedisServer, needs_redis
from .redis_team import Team, follow, in_step, put_at_last, texts
from .stores import Recorder, Worker, eventually, given_all, put, read_all

pytestmark = [needs_redis, pytest.mark.timeout(60)]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the package's lines of the log."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "aiohttp_sse_routes"
    ]


async def heard(worker: Worker, *words: str) -> None:
    """Return when the last events that *worker* was given say *words*."""
    entries = worker.recorder.entries
    await eventually(
        lambda: texts(entries)[-len(words) :] == [*words],
        what=f"the last ones say {words}",
    )


async def test_gone_and_back_with_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that was killed and comes back with its data has lost nothing.

    A publish meanwhile says that it cannot be reached, each worker says once that it
    is away and once that it is back, and no client is told anything.
    """
    caplog.set_level(logging.INFO, logger="aiohttp_sse_routes")
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.workers(2)
            before = await put(one.store, "c", "1", "2")
            await heard(two, "2")
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"cannot be reached.*Connect"):
                await put(one.store, "c", "lost")
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await one.store.read(["c"], 0, 1 << 60, limit=1)
            await eventually(lambda: len(logged(caplog)) == 2)
            server.restart()
            after = await put_at_last(one, "c", "3")
            await heard(one, "1", "2", "3")
            await heard(two, "1", "2", "3")
            await eventually(lambda: len(logged(caplog)) == 4)
            for worker in (one, two):
                (_, first, _), (lineage, reset, seen) = worker.recorder.lineages
                assert (first, reset, seen) == (True, False, 2)
                assert {before.generation: before.last} == lineage.forks
                assert [] == worker.recorder.lost
            assert after.first > before.last + (1 << 19)
            entries, floors = await read_all(one.store, ["c"])
            assert (["1", "2", "3"], {}) == (texts(entries), floors)
            assert [before.last, after.last] == [entries[2].prev, entries[2].seq]
    away, back = logged(caplog)[:2], logged(caplog)[2:]
    assert all("cannot be reached" in line or "closed" in line for line in away)
    assert [f"Redis at {server.url} is back"] * 2 == back


async def test_back_without_its_data(tmp_path: Path) -> None:
    """A Redis that comes back empty is another log: everybody is told a reset.

    Its numbers are above all that the old one gave, and what is published there comes
    to everybody, the first event too.
    """
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.workers(2)
            before = await put(one.store, "c", "1")
            await heard(two, "1")
            server.restart(empty=True)
            after = await put_at_last(one, "c", "2")
            for worker in (one, two):
                await heard(worker, "1", "2")
                (_, _, _), (lineage, reset, seen) = worker.recorder.lineages
                assert (reset, seen, lineage.forks) == (True, 1, {})
                assert [] == worker.recorder.lost
            assert after.generation != before.generation
            assert after.first > before.last
            assert ([], {}) != await read_all(one.store, ["c"], after.first - 1)


async def test_emptied(tmp_path: Path) -> None:
    """After FLUSHALL the next publish is in a new log, and not one event is lost."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.workers(2)
            await put(one.store, "c", "1")
            await heard(two, "1")
            server.command("FLUSHALL")
            await put(one.store, "c", "2")
            for worker in (one, two):
                await heard(worker, "1", "2")
                assert [True, True] == [r for _, r, _ in worker.recorder.lineages]


async def test_emptied_and_nothing_published(tmp_path: Path) -> None:
    """A log that was emptied is noticed by everybody though nothing is published."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            await heard(one, "1")
            server.command("FLUSHALL")
            await eventually(lambda: len(one.recorder.lineages) == 2)
            assert one.recorder.lineages[1][1]


@pytest.mark.parametrize("key", ["m", "l"])
async def test_evicted(tmp_path: Path, key: str) -> None:
    """Where a key of the log was evicted, clients are told a reset, not nothing."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            old = await put(one.store, "c", "1")
            await heard(one, "1")
            namespace = getattr(one.store, "namespace")  # noqa: B009
            assert server.command("DEL", f"{{{namespace}}}:{key}") == b":1\r\n"
            new = await put(one.store, "c", "2")
            await heard(one, "1", "2")
            assert [True, True] == [r for _, r, _ in one.recorder.lineages]
            assert new.first > old.last
            entries, floors = await read_all(one.store, ["c"], new.first - 1)
            assert (["2"], {}) == (texts(entries), floors)
            assert ["2"] == texts((await read_all(one.store, ["c"]))[0])


async def test_a_place_in_a_log_that_is_gone_is_not_read(tmp_path: Path) -> None:
    """Between a reset and its being told, a read fails rather than hide the hole."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            store = await team.open()
            done = await put(store, "c", "1")
            server.command("FLUSHALL")
            with pytest.raises(StoreUnavailable, match="begun anew"):
                await store.read(["c"], done.first - 1, done.last, limit=1)
            await eventually(
                lambda: store.lineage and store.lineage.generation != done.generation
            )
            await store.read(["c"], done.first - 1, done.last, limit=1)


async def test_restarts(tmp_path: Path) -> None:
    """Of any number of restarts the newest sixteen places of forks are remembered."""
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            done = [await put(one.store, "c", "0")]
            await heard(one, "0")
            for turn in range(1, 20):
                server.restart()
                done.append(await put_at_last(one, "c", str(turn)))
                await heard(one, str(turn))
            assert [*map(str, range(20))] == texts(one.recorder.entries)
            assert one.store.lineage is not None
            assert {d.generation: d.last for d in done[3:19]} == one.store.lineage.forks
            assert [True] + [False] * (len(one.recorder.lineages) - 1) == [
                reset for _, reset, _ in one.recorder.lineages
            ]


async def test_the_hearing_connection_is_cut(tmp_path: Path) -> None:
    """What is published while the hearing connection is cut is read from the log."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            one, two = await team.workers(2)
            for turn in range(20):
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
                await put(one.store, f"c{turn % 3}", str(turn))
            await heard(one, *map(str, range(20)))
            await heard(two, *map(str, range(20)))
            for worker in (one, two):
                assert len(worker.recorder.lineages) == 1


async def test_messages_that_never_come(tmp_path: Path) -> None:
    """What no message told of is noticed within 5 s, though nothing more is said."""
    with RedisServer(tmp_path / "r") as server:
        async with Proxy(server.port) as proxy, Team(proxy.url, tmp_path) as team:
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            await heard(one, "1")
            proxy.swallow = b"message"
            began = time.monotonic()
            await put(one.store, "c", "2")
            await heard(one, "1", "2")
            assert time.monotonic() - began < 5
            proxy.swallow = None
            await put(one.store, "c", "3")
            await heard(one, "1", "2", "3")
            assert len(one.recorder.lineages) == 1


async def test_a_message_in_the_middle_never_comes(tmp_path: Path) -> None:
    """A hole before a message is filled before that message is handed on."""
    with RedisServer(tmp_path / "r") as server:
        async with Proxy(server.port) as proxy, Team(proxy.url, tmp_path) as team:
            (one,) = await team.workers(1)
            proxy.swallow = b"message"
            await put(one.store, "c", "1")
            await eventually(lambda: proxy.swallowed)
            proxy.swallow = None
            await put(one.store, "d", "2")
            began = time.monotonic()
            await heard(one, "1", "2")
            assert time.monotonic() - began < 1


async def test_hanging(tmp_path: Path) -> None:
    """A Redis that hangs fails a publish after its time, and holds nobody else up."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, timeout=0.5) as team:
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            await heard(one, "1")
            server.pause()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await put(one.store, "c", "2")
            assert 0.4 < time.monotonic() - began < 3
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await one.store.head()
            server.resume()
            await put_at_last(one, "c", "3")
            await heard(one, "3")
            # The one that failed may be in the log, once; nothing is told to be lost.
            assert texts(one.recorder.entries) in (["1", "3"], ["1", "2", "3"])
            assert len(one.recorder.lineages) == 1
            assert [] == one.recorder.lost


async def test_hanging_when_it_is_opened_and_closed(tmp_path: Path) -> None:
    """Neither opening nor closing waits for longer than an answer may take."""
    with RedisServer(tmp_path / "r") as server:
        server.pause()
        async with Team(server.url, tmp_path, timeout=0.3) as team:
            store = team.new()
            recorder = Recorder()
            async with asyncio.timeout(3):
                await store.open(recorder, now=time.monotonic)
            assert store.lineage is None
            async with asyncio.timeout(3):
                await store.close()
            await store.open(recorder, now=time.monotonic)
            server.resume()
            await eventually(lambda: store.lineage is not None)
            await put(store, "c", "1")
            await eventually(lambda: texts(recorder.entries) == ["1"])


async def test_a_replica_under_the_same_address(tmp_path: Path) -> None:
    """A master that is made a replica takes nothing; made a master again it goes on."""
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        await follow(b, a)
        async with Team(a.url, tmp_path) as team:
            (one,) = await team.workers(1)
            done = await put(one.store, "c", "1")
            await heard(one, "1")
            await in_step(b, a)
            b.command("REPLICAOF", "NO", "ONE")
            a.command("REPLICAOF", "127.0.0.1", b.port)
            with pytest.raises(StoreUnavailable, match=r"read-only replica.*master"):
                await put(one.store, "c", "no")
            await in_step(a, b)
            a.command("REPLICAOF", "NO", "ONE")
            await put_at_last(one, "c", "2")
            await heard(one, "1", "2")
            assert one.store.lineage is not None
            assert one.store.lineage.forks[done.generation] == done.last
            assert [] == one.recorder.lost
            assert [r for _, r, _ in one.recorder.lineages][1:].count(True) == 0


async def test_failover_that_loses(tmp_path: Path) -> None:
    """What a failover has lost is told by channel, exactly, to every worker.

    The replica has stopped copying while publishes go on, the master is killed, the
    replica is promoted, and the address leads to it. What was known to be published by
    any worker that is still there, and is gone, is reported; to workers that come
    later too. Channels that lost nothing are not named.
    """
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        await follow(b, a)
        async with Proxy(a.port) as proxy, Team(proxy.url, tmp_path) as team:
            one, two = await team.workers(2)
            kept = await put(one.store, "kept", "1")
            await put(one.store, "both", "2")
            await in_step(b, a)
            # It copies nothing from now on, and nobody knows it yet.
            b.command("REPLICAOF", "NO", "ONE")
            gone = await put(one.store, "both", "3", "4")
            also = await put(two.store, "only", "5")
            for worker in (one, two):
                await heard(worker, "1", "2", "3", "4", "5")
            a.kill()
            await proxy.move(b.port)
            new = await put_at_last(two, "both", "6")
            for worker in (one, two):
                await heard(worker, "5", "6")
                await eventually(lambda w=worker: w.recorder.lost)  # type: ignore[misc]
                assert [{"both": gone.last, "only": also.last}] == worker.recorder.lost
                lineage = worker.store.lineage
                assert lineage is not None
                assert {kept.generation: kept.last + 1} == lineage.forks
                assert {"both": gone.last, "only": also.last} == lineage.lost
                assert [True, False] == [r for _, r, _ in worker.recorder.lineages]
            assert new.first > also.last
            late = await team.open(Recorder())
            assert late.lineage is not None
            assert {"both": gone.last, "only": also.last} == late.lineage.lost
            entries, floors = await read_all(late, ["kept", "both", "only"])
            assert (["1", "2", "6"], {}) == (texts(entries), floors)


async def test_a_loss_is_told_to_who_comes_late(tmp_path: Path) -> None:
    """Who notices a failover after others is told what the others have reported."""
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        await follow(b, a)
        async with (
            Proxy(a.port) as proxy,
            Proxy(a.port) as other,
            Team(proxy.url, tmp_path) as team,
        ):
            (one,), two = await team.workers(1), await team.worker_at(other.url)
            await put(one.store, "c", "1")
            await heard(two, "1")
            await in_step(b, a)
            b.command("REPLICAOF", "NO", "ONE")
            await other.move(0)
            gone = await put(one.store, "c", "2")
            a.kill()
            await proxy.move(b.port)
            await eventually(lambda: one.recorder.lost)
            await put(one.store, "c", "3")
            await other.move(b.port)
            await heard(two, "1", "3")
            await eventually(lambda: two.recorder.lost)
            assert [{"c": gone.last}] == two.recorder.lost
            assert [True, False] == [r for _, r, _ in two.recorder.lineages]


async def test_failover_while_all_publish(tmp_path: Path) -> None:
    """After a failover under load each worker has all, or was told what it lost.

    Of what had been published for certain, and of what was handed on, everything is in
    the log, or is not above the number that is told to be lost of its channel.
    """
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        await follow(b, a)
        async with (
            Proxy(a.port) as proxy,
            Team(proxy.url, tmp_path, max_events=100_000) as team,
        ):
            workers = await team.workers(3)
            await put(workers[0].store, "first", "x")
            await in_step(b, a)
            done: dict[int, tuple[str, str]] = {}
            stop = asyncio.Event()

            async def publish(worker: Worker, name: str) -> None:
                for turn in range(1_000_000):
                    if stop.is_set():
                        return
                    try:
                        at = await put(worker.store, name, f"{name}.{turn}")
                    except StoreUnavailable:
                        await asyncio.sleep(0.01)
                    else:
                        done[at.first] = (name, f"{name}.{turn}")

            writers = [
                asyncio.create_task(publish(worker, f"c{index}.{part}"))
                for index, worker in enumerate(workers)
                for part in range(3)
            ]
            await eventually(lambda: len(done) > 300)
            b.command("REPLICAOF", "NO", "ONE")
            count = len(done)
            await eventually(lambda: len(done) > count + 300)
            a.kill()
            await proxy.move(b.port)
            count = len(done)
            await eventually(lambda: len(done) > count + 300)
            stop.set()
            await asyncio.gather(*writers)
            names = [f"c{index}.{part}" for index in range(3) for part in range(3)]
            names.append("first")
            through = await workers[0].store.head()
            for worker in workers:
                await given_all(worker, through)
            entries, _ = await read_all(workers[0].store, names, limit=100_000)
            here = {entry.seq: (entry.channel, texts([entry])[0]) for entry in entries}
            missing = {seq: at for seq, at in done.items() if seq not in here}
            assert missing, "the failover has lost nothing: the test shows nothing"
            # The witnesses' reports come to all.
            newest: dict[str, int] = {}
            for seq, (name, _) in missing.items():
                newest[name] = max(newest.get(name, 0), seq)

            def told(worker: Worker) -> bool:
                lineage = worker.store.lineage
                return lineage is not None and all(
                    lineage.lost.get(name, 0) >= seq for name, seq in newest.items()
                )

            for worker in workers:
                await eventually(lambda w=worker: told(w))  # type: ignore[misc]
                given = [entry.seq for entry in worker.recorder.entries]
                assert given == sorted(set(given))
                assert here.keys() <= set(given)
                lineage = worker.store.lineage
                assert lineage is not None
                # Nothing is told to be lost that is there.
                assert not any(lineage.lost.get(n) == s for s, (n, _) in here.items())
                assert [True, False] == [r for _, r, _ in worker.recorder.lineages]
            assert {seq: at for seq, at in done.items() if seq in here}.items() <= (
                here.items()
            )


async def test_opened_before_there_is_a_redis(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An application starts without its Redis, says so once, and finds it later."""
    server = RedisServer(tmp_path / "r")
    async with Team(server.url, tmp_path) as team:
        store = team.new()
        recorder = Recorder()
        await store.open(recorder, now=time.monotonic)
        assert store.lineage is None
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await put(store, "c", "1")
        assert len(logged(caplog)) == 1
        assert "cannot be reached" in logged(caplog)[0]
        with server:
            await eventually(lambda: store.lineage is not None)
            await put(store, "c", "2")
            await eventually(lambda: texts(recorder.entries) == ["2"])
        assert len([line for line in logged(caplog) if "reached" in line]) <= 2


async def test_waiting_for_a_redis_that_is_away(tmp_path: Path) -> None:
    """With ``wait`` a publish rides out a restart, and is there once."""
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(server.url, tmp_path, wait=20) as team:
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            server.kill()
            waiting = [
                asyncio.create_task(put(one.store, "c", f"x{turn}"))
                for turn in range(50)
            ]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            server.start()
            done = await asyncio.gather(*waiting)
            assert not any(at.repeated for at in done)
            entries, _ = await read_all(one.store, ["c"])
            assert sorted(texts(entries)) == sorted(
                ["1", *(f"x{t}" for t in range(50))]
            )


async def test_waiting_ends(tmp_path: Path) -> None:
    """A publish waits as long as it was told, and then says why it waited."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, wait=0.5) as team:
            store = await team.open()
            server.kill()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await put(store, "c", "1")
            assert 0.1 < time.monotonic() - began < 3
            waiting = asyncio.create_task(put(store, "c", "2"))
            await asyncio.sleep(0.01)
            await store.close()
            with pytest.raises(StoreError):
                await waiting


async def test_an_answer_is_lost(tmp_path: Path) -> None:
    """A publish whose answer is lost is done once, if it waits or has a key.

    The one that waits is not told that it was a repetition; who repeats it is.
    """
    with RedisServer(tmp_path / "r") as server:
        async with Proxy(server.port) as proxy, Team(proxy.url, tmp_path) as team:
            brief, patient = await team.open(), await team.open(wait=20)

            async def lose_the_answer() -> None:
                count = proxy.swallowed
                await eventually(lambda: proxy.swallowed > count)
                proxy.swallow = None
                await proxy.cut()

            for store, options in (
                (patient, {}),
                (patient, {"idempotency_key": "a"}),
                (brief, {"idempotency_key": "b"}),
            ):
                proxy.swallow = b"A "
                losing = asyncio.create_task(lose_the_answer())
                try:
                    done = await put(store, "c", "x", **options)
                    assert not done.repeated
                except StoreUnavailable:
                    assert store is brief
                await losing
                if options:
                    assert (await put(store, "c", "x", **options)).repeated
            assert 3 == len((await read_all(brief, ["c"]))[0])


async def test_cut_again_and_again(tmp_path: Path) -> None:
    """With ``wait`` each event is there once, however often connections are cut."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, wait=20, max_events=100_000) as team:
            one, two = await team.workers(2)
            done: list[str] = []

            async def publish(worker: Worker, name: str) -> None:
                for turn in range(150):
                    at = await put(worker.store, name, f"{name}.{turn}")
                    assert not at.repeated
                    done.append(f"{name}.{turn}")

            writers = [
                asyncio.create_task(publish(worker, f"{part}{index}"))
                for index, worker in enumerate((one, two))
                for part in "abcde"
            ]
            while not all(writer.done() for writer in writers):
                server.command("CLIENT", "KILL", "TYPE", "normal")
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(0.02)
            await asyncio.gather(*writers)
            for worker in (one, two):
                await given_all(worker, await worker.store.head())
                assert sorted(texts(worker.recorder.entries)) == sorted(done)
                assert len(worker.recorder.lineages) == 1


async def test_cancelling_a_publish(tmp_path: Path) -> None:
    """Publishes that are cancelled while they wait leave the store as it was."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            server.pause()
            waiting = [
                asyncio.create_task(put(one.store, "c", f"x{turn}"))
                for turn in range(20)
            ]
            await asyncio.sleep(0.01)
            for task in waiting[::2]:
                task.cancel()
            server.resume()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert [task.cancelled() for task in waiting] == [True, False] * 10
            await put(one.store, "c", "end")
            await heard(one, "end")
            assert {f"x{turn}" for turn in range(1, 20, 2)} < set(
                texts(one.recorder.entries)
            )


async def test_closing_finishes_what_was_begun(tmp_path: Path) -> None:
    """What was being published when the store is closed is done, or says it is not."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            store, other = await team.open(), await team.open()
            waiting = [
                asyncio.create_task(put(store, "c", str(turn))) for turn in range(100)
            ]
            await asyncio.sleep(0)
            await store.close()
            await asyncio.gather(*waiting)
            entries, _ = await read_all(other, ["c"])
            assert texts(entries) == [str(turn) for turn in range(100)]


async def test_a_slow_redis_does_not_block_the_loop(tmp_path: Path) -> None:
    """While Redis hangs the loop turns as ever."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path, timeout=1.0) as team:
            (one,) = await team.workers(1)
            server.pause()
            waiting = asyncio.create_task(put(one.store, "c", "1"))
            longest, before = 0.0, time.monotonic()
            while not waiting.done():
                await asyncio.sleep(0.001)
                now = time.monotonic()
                longest, before = max(longest, now - before), now
            with pytest.raises(StoreUnavailable):
                await waiting
            server.resume()
            assert longest < 0.5


def test_a_store_is_not_used_in_a_forked_process() -> None:
    """Nothing is connected at construction, so that a fork may come between."""
    store = RedisStore("redis://127.0.0.1:1")
    assert store.lineage is None
