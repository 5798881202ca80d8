"""Scenes of delivery: one event to many, a hundred together, a generator a client.

Law: see `benchmarks.delivery`: what is told first is CPU time.
"""

from __future__ import annotations

__all__ = ("SCENES",)

from collections.abc import Mapping

from .actor import BATCH
from .delivery import Course, clients, serving
from .peers import BARE, OURS, everyone, ours
from .scene import Metric, Peer, Place, Scene, Sizes

_GENERATORS = 200
_MAKING = "bare task that makes its event"


def fan_out(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish to many at a pace; return what a delivery costs."""
    count = sizes.connections
    way = peer.options.get("way", "publish")
    path = "/private" if way == "tick" else "/stream"
    with (
        serving(peer, place) as server,
        clients(server.ask("port"), path, count, sizes.settle) as load,
    ):
        batch = peer.options.get("batch", 1)
        found = Course(server, load, count, batch=batch, way=way).measured(sizes)
    return {
        "cpu": found.cpu,
        "p50": found.p50,
        "p99": found.p99,
        "last": found.last,
        "client": found.client,
    }


_METRICS = {
    "cpu": Metric("µs CPU a delivery", 2),
    "p50": Metric("ms, p50"),
    "p99": Metric("ms, p99"),
    "last": Metric("ms, the last"),
    "client": Metric("% of a core, clients", 0),
}


def _fan_out(connections: int, target: str = "") -> Scene:
    return Scene(
        name=f"fan-out-{connections}",
        title=f"One event to {connections:,} connections that follow a channel",
        peers=(*everyone(),),
        metrics=_METRICS,
        reference=BARE,
        measure=fan_out,
        connections=connections,
        target=target,
    )


SCENES = (
    _fan_out(100),
    _fan_out(1000, "at most 1.1 x the bare protocol, a fourth of the queues, < Nchan"),
    _fan_out(10_000, "as at 1,000"),
    Scene(
        name="batch",
        title=f"{BATCH} events, published in one turn of the loop",
        peers=(
            *everyone(batch=BATCH),
            *(
                Peer(
                    f"{peer.name}, as a batch",
                    peer.target,
                    loop=peer.loop,
                    options={"batch": BATCH, "way": "together"},
                    needs=peer.needs,
                )
                for peer in everyone()
                if peer.name in {BARE, OURS, "better-sse, Node"}
            ),
            ours(f"{OURS}, one at a time"),
        ),
        metrics=_METRICS,
        reference=f"{OURS}, as a batch",
        measure=fan_out,
        target="one at a time is at least 30 x a batch",
    ),
    Scene(
        name="private",
        title=f"A generator for each of {_GENERATORS} clients, which all yield at once",
        peers=(
            Peer(_MAKING, "benchmarks.floor:making", options={"way": "tick"}),
            *everyone(nchan=False, way="tick"),
        ),
        metrics=_METRICS,
        reference=_MAKING,
        measure=fan_out,
        connections=_GENERATORS,
        target="at most 1.35 x the bare task, and half of aiohttp-sse",
    ),
)
