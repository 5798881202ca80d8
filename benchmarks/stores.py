"""Scenes of stores: how much can be published, and how soon another worker has it.

Law: the application publishes that also follows, as a worker does, unless a peer says
that it is a `Publisher`; nobody is connected, so that delivery is not in the price.
Rates and delays are those of the clock, so that it is told how long who is measured had
to wait for a core: where that is much, something else ran, and they mean little.
"""

from __future__ import annotations

__all__ = ("SCENES",)

import statistics
import time
from collections.abc import Mapping

from .peers import NEEDS_REDIS
from .processes import Child, cpu_seconds, waited_seconds
from .scene import Metric, Peer, Place, Scene, Sizes

_TASKS = 100
"""Publishes that are under way at a time."""

_INTERVAL = 0.005
"""Seconds between two events of which the way is timed."""

_APP = "benchmarks.apps:ours"
_PUBLISHER = "benchmarks.apps:publisher"


def publishing(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish as fast as it goes; return how fast that is."""
    tasks = peer.options.get("tasks", _TASKS)
    count = sizes.publishes if tasks > 1 else max(2, sizes.publishes // 10)
    with Child(peer.target, store=place.store(peer)) as worker:
        # The first ones make the file, load the scripts, fill the channel.
        worker.ask("pipeline", count=min(count, 1000), tasks=tasks)
        before = _spent(worker, place)
        seconds = worker.ask("pipeline", count=count, tasks=tasks)
        after = _spent(worker, place)
    cpu, redis, waited = map(float.__sub__, after, before)
    return {
        "rate": count / seconds,
        "cpu": cpu / count * 1e6,
        "redis": redis / count * 1e6,
        "waited": waited / seconds * 100,
    }


def _spent(worker: Child, place: Place) -> tuple[float, float, float]:
    """Return the CPU time of *worker* and of Redis, and how long either waited."""
    pid = place.redis_pid
    if not pid:
        return worker.cpu(), 0.0, worker.waited()
    return worker.cpu(), cpu_seconds(pid), worker.waited() + waited_seconds(pid)


def latency(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish in one worker, hear it in another; return how long that takes."""
    store = place.store(peer)
    with Child(peer.target, store=store) as one, Child(peer.target, store=store) as two:
        two.ask("listen", count=sizes.probes)
        two.send("heard")
        start, before = time.monotonic(), one.waited() + two.waited()
        took = one.ask("probe", count=sizes.probes, interval=_INTERVAL)
        delays = sorted(two.answer())
        waited = one.waited() + two.waited() - before
        seconds = time.monotonic() - start
    return {
        "p50": statistics.median(delays) * 1e3,
        "p99": delays[int(len(delays) * 0.99)] * 1e3,
        "publish": statistics.median(took) * 1e3,
        "waited": waited / seconds * 100,
    }


_PUBLISHING = {
    "rate": Metric("publishes a second", 0),
    "cpu": Metric("µs CPU a publish"),
    "redis": Metric("µs of Redis"),
    "waited": Metric("% waiting for a core", 0),
}

SCENES = (
    Scene(
        name="publish",
        title=f"Publishes a second, {_TASKS} under way at a time",
        peers=(
            Peer("memory", _APP),
            Peer("SQLite", _APP, store="sqlite"),
            Peer("SQLite, Publisher", _PUBLISHER, store="sqlite"),
            Peer("Redis", _APP, store="redis", needs=NEEDS_REDIS),
            Peer("Redis, Publisher", _PUBLISHER, store="redis", needs=NEEDS_REDIS),
        ),
        metrics=_PUBLISHING,
        reference="memory",
        measure=publishing,
        more_is_better=True,
        target="SQLite 15000, Redis 10000",
    ),
    Scene(
        name="publish-alone",
        title="Publishes a second, one after another",
        peers=(
            Peer("memory", _APP, options={"tasks": 1}),
            Peer("SQLite", _APP, store="sqlite", options={"tasks": 1}),
            Peer("Redis", _APP, store="redis", options={"tasks": 1}, needs=NEEDS_REDIS),
        ),
        metrics=_PUBLISHING,
        reference="memory",
        measure=publishing,
        more_is_better=True,
    ),
    Scene(
        name="latency",
        title="From a publish in one worker to a subscriber in another",
        peers=(
            Peer("SQLite", _APP, store="sqlite"),
            Peer("Redis", _APP, store="redis", needs=NEEDS_REDIS),
        ),
        metrics={
            "p50": Metric("ms, p50", 2),
            "p99": Metric("ms, p99", 2),
            "publish": Metric("ms, the publish itself", 2),
            "waited": Metric("% waiting for a core", 0),
        },
        reference="SQLite",
        measure=latency,
        target="p50 under 3 ms",
    ),
)
