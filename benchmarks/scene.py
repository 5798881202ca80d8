"""The words of a benchmark: scenes, the peers in them, and what is measured.

Law: a scene measures one peer at a time, from nothing, so that rounds can alternate
between peers and whoever was measured before leaves nothing behind.
"""

from __future__ import annotations

__all__ = ("Metric", "Peer", "Place", "Scene", "Sizes", "lacks")

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sizes:
    """How much is done in a round.

    Attributes:
        connections: Clients at a time, where a scene does not say how many.
        deliveries: Deliveries of single events, at most.
        seconds: Time for which events are published, about, and at most.
        missed: Events that a client which comes back has missed.
        publishes: Events that are published, or parsed, as fast as it goes.
        probes: Events whose way from worker to worker is timed.
        large: Events of 2 KB that clients who do not read are behind.
        settle: Seconds for what a server does when its clients have their headers.
    """

    connections: int = 1000
    deliveries: int = 50_000
    seconds: float = 2.0
    missed: int = 1000
    publishes: int = 20_000
    probes: int = 300
    large: int = 100
    settle: float = 0.3

    def scaled(self, factor: float) -> Sizes:
        """Return these sizes times *factor*; what is counted is at least 2."""
        scaled = {
            name: max(2, round(size * factor)) if isinstance(size, int) else size
            for name, size in vars(self).items()
        }
        return Sizes(**scaled | {"seconds": self.seconds * factor})

    def of(self, scene: Scene) -> Sizes:
        """Return these sizes with as many connections as *scene* wants of 1,000."""
        count = max(2, round(self.connections * scene.connections / 1000))
        return replace(self, connections=count)


@dataclass(frozen=True)
class Metric:
    """What a scene measures.

    Attributes:
        label: The head of its column.
        digits: Digits behind the point.
    """

    label: str
    digits: int = 1


@dataclass(frozen=True)
class Peer:
    """One of those that a scene compares.

    Attributes:
        name: What the table calls it.
        target: What serves it, as ``module:function``; see `benchmarks.worker`.
        store: The kind of its store, where it has one.
        loop: The module of its event loop; empty for asyncio's own.
        options: What the scene is told of it.
        needs: Modules that it imports, programs that it runs, and files.
    """

    name: str
    target: str
    store: str = ""
    loop: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """Where a peer is measured: a folder that is empty, and a Redis that is.

    Attributes:
        folder: The folder.
        redis: The URL of the Redis; empty for a peer that has none.
        redis_pid: Its process.
    """

    folder: Path
    redis: str = ""
    redis_pid: int = 0

    def store(self, peer: Peer) -> str:
        """Return where the store of *peer* is; see `benchmarks.apps.make_store`."""
        return {
            "sqlite": f"sqlite:{self.folder / 'events.db'}",
            "redis": self.redis,
        }.get(peer.store, peer.store)


@dataclass(frozen=True)
class Scene:
    """A question, and who answers it.

    Attributes:
        name: What it is asked by on the command line.
        title: What it is called.
        peers: Who is compared.
        metrics: What is measured; a ratio is told of the first of them.
        reference: The name of the peer whose measure is 1.
        measure: Measures one peer, once.
        connections: How many connect, where the sizes say 1,000.
        more_is_better: Whether the first metric is the better the more it is.
        target: What has to be reached, in words; empty where nothing has.
    """

    name: str
    title: str
    peers: Sequence[Peer]
    metrics: Mapping[str, Metric]
    reference: str
    measure: Callable[[Peer, Sizes, Place], Mapping[str, float]]
    connections: int = 1000
    more_is_better: bool = False
    target: str = ""


def lacks(peer: Peer) -> str:
    """Return what *peer* needs and is not there; empty if nothing is missing."""
    return ", ".join(name for name in (*peer.needs, peer.loop) if name and _lacks(name))


def _lacks(name: str) -> bool:
    if "/" in name:
        return not (ROOT / name).exists()
    return shutil.which(name) is None and importlib.util.find_spec(name) is None
