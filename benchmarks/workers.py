"""Scenes of workers: several processes on one port, and one store that they share.

Law: the price is that of all workers together, and Redis's is told beside it. On two
cores, which the clients need as well, two workers show what they cost, and not how much
faster they are.
"""

from __future__ import annotations

__all__ = ("SCENES",)

import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from .delivery import Course, clients
from .peers import NEEDS_REDIS, ours
from .processes import Child, cpu_seconds
from .scene import Metric, Peer, Place, Scene, Sizes


class Workers:
    """Several, of which the first one publishes.

    Args:
        children: All of them.
    """

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def ask(self, method: str, **arguments: Any) -> Any:
        """See `benchmarks.delivery.Serving`."""
        return self._children[0].ask(method, **arguments)

    def tidy(self) -> None:
        """See `benchmarks.delivery.Serving`."""
        for child in self._children:
            child.tidy()

    def cpu(self) -> float:
        """See `benchmarks.delivery.Serving`."""
        return sum(child.cpu() for child in self._children)

    def busiest(self, before: Sequence[float]) -> float:
        """Return the part of the CPU time since *before* that one of them took."""
        took = [now - was for now, was in zip(self.each(), before, strict=True)]
        return max(took) / sum(took)

    def each(self) -> list[float]:
        """Return the CPU time of each."""
        return [child.cpu() for child in self._children]


def several(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish in one worker to the clients of all; return what a delivery costs."""
    count, port = sizes.connections, _free()
    with contextlib.ExitStack() as stack:
        workers = Workers(
            [
                stack.enter_context(
                    Child(peer.target, store=place.store(peer), port=port)
                )
                for _ in range(peer.options["workers"])
            ]
        )
        load = stack.enter_context(clients(port, "/stream", count, sizes.settle))
        course = Course(workers, load, count)
        interval = course.warm() * 2
        rounds = max(5, int(min(sizes.deliveries / count, sizes.seconds / interval)))
        redis, each = _redis(place), workers.each()
        found = course.run(rounds, interval)
        redis = _redis(place) - redis
        busiest = workers.busiest(each)
    return {
        "cpu": found.cpu,
        "redis": redis / rounds * 1e6,
        "busiest": busiest * 100,
        "p50": found.p50,
        "p99": found.p99,
        "client": found.client,
    }


def _redis(place: Place) -> float:
    return cpu_seconds(place.redis_pid) if place.redis_pid else 0.0


def _free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _of(name: str, workers: int, store: str = "") -> Peer:
    needs = NEEDS_REDIS if store else ()
    return ours(name, store=store, options={"workers": workers}, needs=needs)


SCENES = (
    Scene(
        name="workers",
        title="One event to 1,000 connections of one worker, or of two with Redis",
        peers=(
            _of("one worker, memory", 1),
            _of("one worker, Redis", 1, "redis"),
            _of("two workers, Redis", 2, "redis"),
        ),
        metrics={
            "cpu": Metric("µs CPU a delivery", 2),
            "redis": Metric("µs of Redis, an event", 0),
            "busiest": Metric("% by the busiest", 0),
            "p50": Metric("ms, p50"),
            "p99": Metric("ms, p99"),
            "client": Metric("% of a core, clients", 0),
        },
        reference="one worker, memory",
        measure=several,
    ),
)
