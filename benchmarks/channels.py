"""Scenes of channels: one event to many, a batch to many, memory, and all come back.

Law: the price is the server's CPU time, for the events of the scene alone. Events are
published so slowly that the clients are done with one before the next is there, and
their own share of the time says that they were.
"""

from __future__ import annotations

__all__ = ("SCENES",)

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .apps import BATCH
from .processes import Child, cpu_seconds
from .scene import Metric, Peer, Place, Scene, Sizes

APPS = "benchmarks.apps"

_A_CLIENT = 80e-6
"""Seconds for each client between two events: more than the slowest peer takes."""

_SETTLE = 0.3
"""Seconds for what a server still does when its clients have their headers."""


def fan_out(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Publish to many at a pace; return what a delivery costs."""
    batch = peer.options.get("batch", 1)
    count = sizes.batches if batch > 1 else sizes.events
    clients = sizes.connections
    # A batch is more bytes, of which a client reads 64 KiB or so at a time.
    interval = clients * _A_CLIENT * (2 if batch > 1 else 1)
    with (
        Child(peer.target, store=place.store(peer)) as server,
        Child("benchmarks.load:load") as load,
    ):
        load.ask("connect", port=server.ask("port"), path="/stream", count=clients)
        # The first delivery finds nothing warm.
        _paced(server, load, 2, batch, clients, interval)
        cpu, start = server.cpu(), time.monotonic()
        published, seen = _paced(server, load, count, batch, clients, interval)
        cpu, seconds = server.cpu() - cpu, time.monotonic() - start
    lags = [came - at for at, came in zip(published, seen["times"], strict=True)]
    return {
        "cpu": cpu / (count * batch * clients) * 1e6,
        "lag": statistics.median(lags) * 1e3,
        "client": seen["cpu"] / seconds * 100,
    }


def _paced(
    server: Child, load: Child, count: int, batch: int, clients: int, interval: float
) -> tuple[list[float], Any]:
    """Have *server* publish; return when it did, and what the clients saw."""
    load.send("watch", rounds=count, events=batch * clients)
    published = server.ask("pace", count=count, batch=batch, interval=interval)
    return published, load.answer()


def connections(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Connect many clients; return what each of them takes."""
    clients = sizes.connections
    path = peer.options.get("path", "/stream")
    with Child(peer.target, store=place.store(peer)) as server:
        port = server.ask("port")
        # What is made for the first is not the price of a client.
        with Child("benchmarks.load:load") as load:
            load.ask("connect", port=port, path=path, count=min(clients, 50))
            time.sleep(_SETTLE)
        time.sleep(_SETTLE)
        memory, cpu = server.memory(), server.cpu()
        with Child("benchmarks.load:load") as load:
            load.ask("connect", port=port, path=path, count=clients)
            time.sleep(_SETTLE)
            taken, cpu = server.memory() - memory, server.cpu() - cpu
    return {"memory": taken / clients / 1024, "cpu": cpu / clients * 1e6}


def storm(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Have all clients come back at once; return what they are given a CPU second."""
    clients = sizes.connections
    missed = 0 if peer.options.get("nothing") else sizes.missed
    store = place.store(peer)
    with Child(peer.target, store=store) as server:
        cursor = server.ask("cursor")
        server.ask("fill", count=missed)
        if not peer.options.get("restart"):
            return _storm(server, cursor, clients, missed, place)
    with Child(peer.target, store=store) as server:
        return _storm(server, cursor, clients, missed, place)


def _storm(
    server: Child, cursor: str, clients: int, missed: int, place: Place
) -> Mapping[str, float]:
    with Child("benchmarks.load:load") as load:
        port = server.ask("port")
        load.ask("connect", port=port, path="/stream", count=1)
        cpu = server.cpu()
        redis = cpu_seconds(place.redis_pid) if place.redis_pid else 0.0
        seconds = load.ask(
            "storm",
            port=port,
            path="/stream",
            count=clients,
            last_event_id=cursor,
            events=clients * missed,
        )
        if not missed:
            time.sleep(clients / 1000 + _SETTLE)
        cpu = server.cpu() - cpu
        if place.redis_pid:
            redis = cpu_seconds(place.redis_pid) - redis
    return {
        "rate": clients * missed / cpu / 1e3,
        "cpu": cpu / clients * 1e6,
        "redis": redis / clients * 1e6,
        "seconds": seconds,
    }


def _fan_out_peers(**options: Any) -> Iterable[Peer]:
    yield Peer("bare protocol", f"{APPS}:bare", options=options)
    yield Peer("aiohttp-sse-routes", f"{APPS}:ours", options=options)
    yield Peer("aiohttp-sse, a queue a client", f"{APPS}:queues", options=options)


_FAN_OUT = {
    "cpu": Metric("us CPU a delivery", 2),
    "lag": Metric("ms to the last"),
    "client": Metric("% of a core, clients", 0),
}

SCENES = (
    Scene(
        name="fan-out",
        title="One event to all who follow a channel",
        peers=(*_fan_out_peers(),),
        metrics=_FAN_OUT,
        reference="bare protocol",
        measure=fan_out,
        target="at most 1.1 x the bare protocol; the queues at least 4 x ours",
    ),
    Scene(
        name="batch",
        title=f"{BATCH} events, published together, to all who follow a channel",
        peers=(
            *_fan_out_peers(batch=BATCH),
            Peer("aiohttp-sse-routes, one at a time", f"{APPS}:ours"),
        ),
        metrics=_FAN_OUT,
        reference="aiohttp-sse-routes",
        measure=fan_out,
        target="one at a time is at least 30 x",
    ),
    Scene(
        name="connections",
        title="What a connection takes that waits for events",
        peers=(
            Peer("aiohttp alone", f"{APPS}:aiohttp_only"),
            Peer("bare protocol", f"{APPS}:bare"),
            Peer("aiohttp-sse-routes, a channel", f"{APPS}:ours"),
            Peer(
                "aiohttp-sse-routes, a private run",
                f"{APPS}:ours",
                options={"path": "/private"},
            ),
            Peer("aiohttp-sse, a queue a client", f"{APPS}:queues"),
        ),
        metrics={
            "memory": Metric("KiB of memory"),
            "cpu": Metric("us CPU to connect", 0),
        },
        reference="aiohttp alone",
        measure=connections,
        target="12.5 KB a channel's follower, 15 KB a private run",
    ),
    Scene(
        name="storm",
        title="All clients come back at once, each has missed as many events",
        peers=(
            Peer("bare protocol", f"{APPS}:bare"),
            Peer("memory", f"{APPS}:ours"),
            Peer("SQLite", f"{APPS}:ours", store="sqlite"),
            Peer(
                "SQLite, server restarted",
                f"{APPS}:ours",
                store="sqlite",
                options={"restart": True},
            ),
            Peer(
                "Redis",
                f"{APPS}:ours",
                store="redis",
                needs=("redis-server", "redis"),
            ),
            Peer(
                "Redis, server restarted",
                f"{APPS}:ours",
                store="redis",
                options={"restart": True},
                needs=("redis-server", "redis"),
            ),
            Peer("memory, nothing missed", f"{APPS}:ours", options={"nothing": True}),
        ),
        metrics={
            "rate": Metric("1000 events a CPU second", 0),
            "cpu": Metric("us CPU a client", 0),
            "redis": Metric("us of Redis", 0),
            "seconds": Metric("s in all", 2),
        },
        reference="memory",
        measure=storm,
        more_is_better=True,
        target="1500, from memory",
    ),
)
