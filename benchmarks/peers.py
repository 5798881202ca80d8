"""Who is compared: each peer's name, where it runs, and what it needs.

Law: a peer runs as its own documentation says. What uvicorn serves runs on uvloop, as
with `uvicorn[standard]`; this package and the floor run on asyncio, and on uvloop
as well.
"""

from __future__ import annotations

__all__ = ("BARE", "NEEDS_REDIS", "OURS", "UVLOOP", "everyone", "ours")

from collections.abc import Iterator
from typing import Any, Final

from .nginx import MODULE
from .scene import Peer

OURS: Final = "aiohttp-sse-routes"
BARE: Final = "bare protocol"
QUEUES: Final = "aiohttp-sse, a queue a client"
UVLOOP: Final = "uvloop"

NEEDS_REDIS: Final = ("redis-server", "redis")

_NODE: Final = "benchmarks/node/server.mjs"
_BETTER_SSE: Final = "benchmarks/node/node_modules/better-sse"

_UVICORN: Final = (
    ("sse-starlette", "starlette_sse", "sse_starlette"),
    ("FastAPI, EventSourceResponse", "fastapi_native", "fastapi"),
    ("FastAPI, StreamingResponse", "fastapi_text", "fastapi"),
    ("Litestar, channels", "litestar_channels", "litestar"),
)


def ours(name: str = OURS, **words: Any) -> Peer:
    """Return this package; *words* are those of a `Peer`."""
    return Peer(name, "benchmarks.apps:ours", **words)


def aiohttp_peers(**options: Any) -> Iterator[Peer]:
    """Yield the floor, this package, and aiohttp-sse; the first two on uvloop too."""
    for name, target in ((BARE, "floor:bare"), (OURS, "apps:ours")):
        target = f"benchmarks.{target}"
        yield Peer(name, target, options=options)
        yield Peer(f"{name}, {UVLOOP}", target, loop=UVLOOP, options=options)
    yield Peer(QUEUES, "benchmarks.floor:queues", options=options)


def everyone(*, nchan: bool = True, **options: Any) -> Iterator[Peer]:
    """Yield all of them; Nchan runs nobody's generators."""
    yield from aiohttp_peers(**options)
    for name, function, module in _UVICORN:
        yield Peer(
            name,
            f"benchmarks.asgi:{function}",
            loop=UVLOOP,
            options=options,
            needs=("uvicorn", "httptools", module),
        )
    yield Peer("better-sse, Node", _NODE, options=options, needs=("node", _BETTER_SSE))
    if nchan:
        yield Peer(
            "Nchan in nginx",
            "benchmarks.nginx:nchan",
            options=options,
            needs=("nginx", MODULE),
        )
