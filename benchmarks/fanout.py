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

_PACE = 0.15
"""Seconds between two events that go to fewer and to more clients at one pace."""

_FEWER = 10
"""How many times fewer."""

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


def growth(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish to many, and to a tenth, at one pace; return how a delivery's cost grows.

    The pace matters more than how many there are: a client acknowledges every second
    segment at once, and a single one after 40 ms, in a packet of its own. So clients
    who are given an event each 10 ms cost less than those with one each 150 ms.
    """
    cpu = []
    pace = min(_PACE, sizes.seconds)
    for count in (max(1, sizes.connections // _FEWER), sizes.connections):
        with (
            serving(peer, place) as server,
            clients(server.ask("port"), "/stream", count, sizes.settle) as load,
        ):
            course = Course(server, load, count)
            course.warm()
            cpu.append(course.run(max(5, int(sizes.seconds * 2 / pace)), pace).cpu)
    few, many = cpu
    return {"growth": many / few, "few": few, "many": many}


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
    _fan_out(10_000),
    Scene(
        name="growth",
        title="A delivery to 10,000 connections, in those to 1,000 at the same pace",
        peers=tuple(
            peer for peer in everyone() if peer.name.startswith((BARE, OURS, "Nchan"))
        ),
        metrics={
            "growth": Metric("x at 1,000", 2),
            "few": Metric("µs CPU a delivery, 1,000", 2),
            "many": Metric("µs CPU a delivery, 10,000", 2),
        },
        reference=BARE,
        measure=growth,
        connections=10_000,
        target="at most 1.25 x at 1,000",
    ),
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
