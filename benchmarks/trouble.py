"""Scenes of trouble: clients who do not read, and requests that wait for an answer.

Law: the time of an answer is that of the clock, and has in it what the asking process
waited for a core: the table says how much. Where it is not near 0, something else ran.
"""

from __future__ import annotations

__all__ = ("SCENES",)

from collections.abc import Mapping, Sequence

from .delivery import Course, clients, percentile, serving
from .peers import BARE, everyone
from .processes import Child
from .scene import Metric, Peer, Place, Scene, Sizes

_SIZE = 2000
"""Bytes that an event has more, so that clients who do not read are soon behind."""

_INTERVAL = 0.005
"""Seconds between two requests."""

_SLACK = 1.25
"""How much longer the time between two events is than a fan-out takes."""


def slow(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Have a tenth not read; return what the others pay, before and after."""
    count, stalled = sizes.connections * 9 // 10, max(1, sizes.connections // 10)
    with (
        serving(peer, place) as server,
        clients(server.ask("port"), "/stream", count, sizes.settle) as load,
    ):
        course = Course(server, load, count, size=_SIZE)
        interval = course.warm() * 2
        alone = course.run(sizes.large, interval)
        load.ask("stall", port=server.ask("port"), path="/stream", count=stalled)
        server.tidy()
        memory = server.memory()
        together = course.run(sizes.large, interval)
        memory = server.memory() - memory
    return {
        "cpu": together.cpu,
        "more": together.cpu / alone.cpu,
        "before": alone.p99,
        "p99": together.p99,
        "memory": memory / stalled / 1024,
    }


def requests(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Ask for a small page while events go out to many; return how long that takes."""
    count = sizes.connections
    with (
        serving(peer, place) as server,
        clients(server.ask("port"), "/stream", count, sizes.settle) as load,
        Child("benchmarks.load:load") as asking,
    ):
        words = {"port": server.ask("port"), "path": "/ping", "interval": _INTERVAL}
        asked = max(3, int(sizes.seconds / _INTERVAL))
        course = Course(server, load, count)
        interval = course.warm() * _SLACK
        alone = asking.ask("ask", count=max(2, asked // 4), **words)
        waited = asking.waited()
        asking.send("ask", count=asked, **words)
        found = course.run(2 + int(sizes.seconds / interval), interval)
        took = asking.answer()
        waited = asking.waited() - waited
    return {
        "p50": _percentile(took, 0.5),
        "p99": _percentile(took, 0.99),
        "most": max(took) * 1e3,
        "alone": _percentile(alone, 0.99),
        "client": found.client,
        "waited": waited / len(took) * 1e3,
    }


def _percentile(took: Sequence[float], part: float) -> float:
    return percentile([(seconds, 1) for seconds in took], part) * 1e3


SCENES = (
    Scene(
        name="slow-tenth",
        title="A tenth of the clients do not read; what the others pay",
        peers=(*everyone(),),
        metrics={
            "cpu": Metric("µs CPU a delivery", 2),
            "more": Metric("x before", 2),
            "p99": Metric("ms, p99"),
            "before": Metric("ms, p99 before"),
            "memory": Metric("KiB a slow one"),
        },
        reference=BARE,
        measure=slow,
    ),
    Scene(
        name="requests",
        title="Other requests' answers while events go to 10,000 connections",
        peers=(*everyone(),),
        metrics={
            "p99": Metric("ms, p99"),
            "p50": Metric("ms, p50"),
            "most": Metric("ms, the longest"),
            "alone": Metric("ms, p99 without"),
            "client": Metric("% of a core, clients", 0),
            "waited": Metric("ms waiting for a core", 2),
        },
        reference=BARE,
        measure=requests,
        connections=10_000,
        target="p99 under 20 ms",
    ),
)
