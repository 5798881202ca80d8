"""Publishes to clients at a pace that the peer can keep, and says what that took.

Law: the price is the server's CPU time, for the events that are measured alone. Events
are published so slowly that the clients are done with one before the next is there, and
their own share of the time says that they were.
"""

from __future__ import annotations

__all__ = (
    "Course",
    "Delivered",
    "Serving",
    "clients",
    "late",
    "percentile",
    "serving",
)

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .processes import Child
from .scene import Peer, Place, Sizes

_LEAST: Final = 0.001
"""Seconds between two events, at the least."""


class Serving(Protocol):
    """What serves: one process, or several."""

    def ask(self, method: str, **arguments: Any) -> Any:
        """Call *method*; return what it returns."""

    def tidy(self) -> None:
        """Have every process collect its garbage."""

    def cpu(self) -> float:
        """Return the CPU time, in seconds."""


@dataclass(frozen=True)
class Delivered:
    """What deliveries took.

    Attributes:
        cpu: The server's CPU time for one, in microseconds.
        p50: Milliseconds from the publish until half of the clients had it.
        p99: As well, for 99 of 100.
        last: As well, for the last: the median of the events.
        client: The share of a core that the clients took, in percent.
    """

    cpu: float
    p50: float
    p99: float
    last: float
    client: float


@contextmanager
def serving(peer: Peer, place: Place, **options: Any) -> Iterator[Child]:
    """Have *peer* serve."""
    if not peer.target.endswith(".mjs"):
        options |= {"store": place.store(peer), "loop": peer.loop}
    with Child(peer.target, **options) as server:
        yield server


@contextmanager
def clients(port: int, path: str, count: int, settle: float) -> Iterator[Child]:
    """Have *count* clients of the stream at *path*."""
    with Child("benchmarks.load:load") as load:
        load.ask("connect", port=port, path=path, count=count)
        # Some send their headers before they follow.
        time.sleep(settle)
        yield load


@dataclass(frozen=True)
class Course:
    """Events that go to clients; see `benchmarks.actor.Server.pace` for the words.

    Attributes:
        server: Who publishes.
        load: The clients.
        count: How many they are.
        batch: Events that are published in one turn of the loop.
        way: How.
        size: Bytes that each has more.
    """

    server: Serving
    load: Child
    count: int
    batch: int = 1
    way: str = "publish"
    size: int = 0

    def warm(self) -> float:
        """Publish what is not measured; return the seconds until the last had it.

        The first time finds nothing warm; the second one tells. What the clients'
        connecting has left as garbage is collected before: it is no event's price.
        """
        self.server.tidy()
        lag = 0.0
        for _ in range(2 if self.batch == 1 else 1):
            published, seen = self._paced(1, 0.0)
            lag = seen["came"][-1][0] - published[0]
        return lag

    def run(self, rounds: int, interval: float) -> Delivered:
        """Publish each *interval* seconds, *rounds* times; return what that took."""
        before, start = self.server.cpu(), time.monotonic()
        published, seen = self._paced(rounds, interval)
        cpu, seconds = self.server.cpu() - before, time.monotonic() - start
        deliveries = self.count * self.batch
        lags = [*late(published, seen["came"], deliveries)]
        every = [one for event in lags for one in event]
        return Delivered(
            cpu=cpu / (rounds * deliveries) * 1e6,
            p50=percentile(every, 0.5) * 1e3,
            p99=percentile(every, 0.99) * 1e3,
            last=statistics.median(event[-1][0] for event in lags) * 1e3,
            client=seen["cpu"] / seconds * 100,
        )

    def measured(self, sizes: Sizes) -> Delivered:
        """Warm up; publish as often as *sizes* allow, at half the pace that it can."""
        interval = max(_LEAST, self.warm() * 2)
        most = min(sizes.deliveries / self.count, sizes.seconds / interval)
        return self.run(max(5 if self.batch == 1 else 1, int(most)), interval)

    def _paced(self, rounds: int, interval: float) -> tuple[list[float], Any]:
        """Have the server publish; return when it did, and what the clients saw."""
        self.load.send("watch", events=rounds * self.count * self.batch)
        published = self.server.ask(
            "pace",
            count=rounds,
            interval=interval,
            batch=self.batch,
            way=self.way,
            size=self.size,
        )
        return published, self.load.answer()


def late(
    published: Sequence[float], came: Sequence[tuple[float, int]], deliveries: int
) -> Iterator[list[tuple[float, int]]]:
    """Yield for each event how late its deliveries were, and how many were so late.

    Clients do not say which event they have: the first *deliveries* are the first's.
    """
    arrivals = iter(came)
    when, marks = 0.0, 0
    for at in published:
        lags, left = [], deliveries
        while left:
            if not marks:
                when, marks = next(arrivals)
            some = min(marks, left)
            lags.append((when - at, some))
            marks -= some
            left -= some
        yield lags


def percentile(weighted: Sequence[tuple[float, int]], part: float) -> float:
    """Return the value that *part* of all are not above; each value has a weight."""
    ordered = sorted(weighted)
    reached = itertools.accumulate(weight for _, weight in ordered)
    wanted = part * sum(weight for _, weight in ordered)
    return next(
        value
        for (value, _), sofar in zip(ordered, reached, strict=True)
        if sofar >= wanted
    )
