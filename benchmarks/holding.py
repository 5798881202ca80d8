"""Scenes of connections: what one takes that waits, and what all take that come back.

Law: memory is the proportional set size of the server's processes; what the kernel
holds for a socket is not in it, and is the same for all.
"""

from __future__ import annotations

__all__ = ("SCENES",)

import time
from collections.abc import Mapping
from dataclasses import replace

from .delivery import clients, serving
from .peers import NEEDS_REDIS, OURS, everyone, ours
from .processes import Child, cpu_seconds
from .scene import Metric, Peer, Place, Scene, Sizes


def connections(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Connect many clients; return what each of them takes."""
    count = sizes.connections
    path = peer.options.get("path", "/stream")
    with serving(peer, place) as server:
        port = server.ask("port")
        # What is made for the first is not the price of a client.
        with clients(port, path, min(count, 50), sizes.settle):
            pass
        time.sleep(sizes.settle)
        memory, cpu = server.memory(), server.cpu()
        with Child("benchmarks.load:load") as load:
            seconds = load.ask("connect", port=port, path=path, count=count)
            time.sleep(sizes.settle)
            taken, cpu = server.memory() - memory, server.cpu() - cpu
    return {
        "memory": taken / count / 1024,
        "cpu": cpu / count * 1e6,
        "rate": count / seconds,
    }


def storm(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Have all clients come back at once; return what they are given a CPU second."""
    missed = 0 if peer.options.get("nothing") else sizes.missed
    with serving(peer, place) as server:
        cursor = server.ask("cursor")
        server.ask("fill", count=missed)
        if not peer.options.get("restart"):
            return _storm(server, cursor, sizes, missed, place)
    with serving(peer, place) as server:
        return _storm(server, cursor, sizes, missed, place)


def _storm(
    server: Child, cursor: str, sizes: Sizes, missed: int, place: Place
) -> Mapping[str, float]:
    count = sizes.connections
    port = server.ask("port")
    with clients(port, "/stream", 1, sizes.settle) as load:
        cpu = server.cpu()
        redis = cpu_seconds(place.redis_pid) if place.redis_pid else 0.0
        seconds = load.ask(
            "storm",
            port=port,
            path="/stream",
            count=count,
            last_event_id=cursor,
            events=count * missed,
        )
        if not missed:
            time.sleep(count / 1000 + sizes.settle)
        cpu = server.cpu() - cpu
        if place.redis_pid:
            redis = cpu_seconds(place.redis_pid) - redis
    return {
        "rate": count * missed / cpu / 1e3,
        "cpu": cpu / count * 1e6,
        "redis": redis / count * 1e6,
        "seconds": seconds,
    }


SCENES = (
    Scene(
        name="connections",
        title="What a connection takes that waits for events",
        peers=(
            Peer("aiohttp alone", "benchmarks.floor:aiohttp_only"),
            *(
                replace(peer, name=f"{OURS}, a channel") if peer.name == OURS else peer
                for peer in everyone()
            ),
            ours(f"{OURS}, a private run", options={"path": "/waiting"}),
        ),
        metrics={
            "memory": Metric("KiB of memory"),
            "cpu": Metric("µs CPU to connect", 0),
            "rate": Metric("connects a second", 0),
        },
        reference="aiohttp alone",
        measure=connections,
        connections=2000,
        target="12.5 KB a channel's follower, 15 KB a private run",
    ),
    Scene(
        name="storm",
        title="All clients come back at once, each has missed as many events",
        peers=(
            *(
                replace(peer, name="memory") if peer.name == OURS else peer
                for peer in everyone()
                if peer.name in {"bare protocol", OURS, "Nchan in nginx"}
            ),
            ours("SQLite", store="sqlite"),
            ours("SQLite, server restarted", store="sqlite", options={"restart": True}),
            ours("Redis", store="redis", needs=NEEDS_REDIS),
            ours(
                "Redis, server restarted",
                store="redis",
                options={"restart": True},
                needs=NEEDS_REDIS,
            ),
            ours("memory, nothing missed", options={"nothing": True}),
        ),
        metrics={
            "rate": Metric("1000 events a CPU second", 0),
            "cpu": Metric("µs CPU a client", 0),
            "redis": Metric("µs of Redis", 0),
            "seconds": Metric("s in all", 2),
        },
        reference="memory",
        measure=storm,
        more_is_better=True,
        target="1500, from memory",
    ),
)
