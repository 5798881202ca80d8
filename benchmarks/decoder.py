"""Scenes of parsers: bytes of an event stream in, events out, beside other clients'.

Law: each peer gets the same streams in the same chunks, by the door it has: httpx-sse
an `httpx.Response` made of them, sseclient-py the chunks themselves, aiohttp-sse-client
an `aiohttp.StreamReader` that holds them, since it reads its lines from one. Events are
counted, and a peer that finds another number has failed.

Run as a program, it shows that our time grows with the bytes, not with their square.
"""

from __future__ import annotations

__all__ = ("SCENES", "main")

import asyncio
import functools
import gc
import importlib
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp_sse_routes.decoder import Decoder

from .peers import OURS
from .scene import Metric, Peer, Place, Scene, Sizes

Run = Callable[[list[bytes]], int]


def small(count: int) -> bytes:
    line = b'data: {"symbol":"ABCD","price":%03d.25,"volume":%08d,"side":"b"}\n\n'
    return b"".join(line % (n % 997, n) for n in range(count))


def large(count: int) -> bytes:
    text = b"lorem ipsum " * 84
    return b"".join(b'data: {"n":%d,"text":"%b"}\n\n' % (n, text) for n in range(count))


def full(count: int) -> bytes:
    return b"".join(
        b'id: sse1.l.k3j2h1g0.%d\nevent: price\ndata: {"symbol":"ABC","price":%d.25,'
        b'"time":"2026-01-01T12:00:00Z","volume":%d}\n\n' % (n, n % 997, n)
        for n in range(count)
    )


def lines(count: int) -> bytes:
    block = b"".join(b"data: line %d of it\n" % n for n in range(20))
    return b"".join(b"id: %d\n%b\n" % (n, block) for n in range(count))


def unicode(count: int) -> bytes:
    text = "data: Über den Wolken, 日本語のテキスト 🎉 Grüße\n\n".encode()
    return b"".join(b"id: %d\n%b" % (n, text) for n in range(count))


def crlf(count: int) -> bytes:
    return full(count).replace(b"\n", b"\r\n")


STREAMS: dict[str, tuple[str, Callable[[int], bytes], int]] = {
    # What a column is called, what makes its stream, of how many events for 20,000.
    "small": ("60 B of JSON", small, 20_000),
    "full": ("with id and name", full, 20_000),
    "crlf": ("the same, CRLF", crlf, 20_000),
    "unicode": ("not ASCII", unicode, 20_000),
    "large": ("1 KB in a line", large, 4_000),
    "lines": ("20 short lines", lines, 2_000),
}


def ours() -> Run:
    def run(chunks: list[bytes]) -> int:
        decoder = Decoder()
        return sum(len(decoder.feed(chunk)) for chunk in chunks)

    return run


def httpx_sse() -> Run:
    httpx: Any = importlib.import_module("httpx")
    peer: Any = importlib.import_module("httpx_sse")

    def run(chunks: list[bytes]) -> int:
        response = httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, content=iter(chunks)
        )
        return sum(1 for _ in peer.EventSource(response).iter_sse())

    return run


def sseclient_py() -> Run:
    peer: Any = importlib.import_module("sseclient")

    def run(chunks: list[bytes]) -> int:
        # It takes any iterable of bytes.
        return sum(1 for _ in peer.SSEClient(iter(chunks)).events())

    return run


def aiohttp_sse_client() -> Run:
    import aiohttp
    from aiohttp.base_protocol import BaseProtocol

    peer: Any = importlib.import_module("aiohttp_sse_client.client")

    class Response:
        status = 200

        def __init__(self, content: aiohttp.StreamReader) -> None:
            self.content = content

    class Protocol(BaseProtocol):
        # All is there from the beginning: nobody to tell.
        def pause_reading(self) -> None:
            self._reading_paused = True

        def resume_reading(self, resume_parser: bool = True) -> None:
            self._reading_paused = False

    async def read(chunks: list[bytes]) -> int:
        loop = asyncio.get_running_loop()
        reader = aiohttp.StreamReader(Protocol(loop), 1 << 16, loop=loop)
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        # At the end it would wait and connect again: 204 ends it there instead.
        source = peer.EventSource("http://localhost/", session=object())
        source._response = Response(reader)
        source._on_error = lambda: setattr(source._response, "status", 204)
        source._ready_state = 1

        async def connect() -> None:
            return

        source.connect = connect
        source._reconnection_time *= 0
        count = 0
        async for _ in source:
            count += 1
        return count

    return lambda chunks: asyncio.run(read(chunks))


def timed(run: Run, chunks: list[bytes]) -> tuple[float, int]:
    gc.collect()
    start = time.process_time()
    count = run(chunks)
    return time.process_time() - start, count


@functools.lru_cache(maxsize=32)
def chunks_of(name: str, count: int, size: int) -> list[bytes]:
    stream = STREAMS[name][1](count)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def parsing(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
    """Parse a stream of each shape; return the CPU time of an event, in µs."""
    # sseclient-py formats a line for each event where debug logging is on.
    logging.disable(logging.DEBUG)
    try:
        run: Run = globals()[peer.target.partition(":")[2]]()
        found = {
            name: _price(run, name, sizes.publishes, peer.options["size"])
            for name in STREAMS
        }
    finally:
        logging.disable(logging.NOTSET)
    return {"all": statistics.mean(found.values()), **found}


def _price(run: Run, name: str, events: int, size: int) -> float:
    count = max(2, STREAMS[name][2] * events // 20_000)
    chunks = chunks_of(name, count, size)
    run(chunks[:100])
    seconds, found = timed(run, chunks)
    if found != count:
        raise RuntimeError(f"{found} events of {count} were found in {name}")
    return seconds / count * 1e6


def _scene(name: str, title: str, size: int) -> Scene:
    options = {"size": size}
    return Scene(
        name=name,
        title=f"Parsing, in chunks of {title}",
        peers=(
            Peer(OURS, "benchmarks.decoder:ours", options=options),
            Peer(
                "httpx-sse",
                "benchmarks.decoder:httpx_sse",
                options=options,
                needs=("httpx", "httpx_sse"),
            ),
            Peer(
                "sseclient-py",
                "benchmarks.decoder:sseclient_py",
                options=options,
                needs=("sseclient",),
            ),
            Peer(
                "aiohttp-sse-client",
                "benchmarks.decoder:aiohttp_sse_client",
                options=options,
                needs=("aiohttp_sse_client",),
            ),
        ),
        metrics={
            "all": Metric("µs CPU an event, mean", 2),
            **{name: Metric(label, 2) for name, (label, *_) in STREAMS.items()},
        },
        reference=OURS,
        measure=parsing,
        target="no peer below 1.00 x",
    )


SCENES = (
    _scene("decoder-64k", "64 KiB", 1 << 16),
    _scene("decoder-4k", "4 KiB", 1 << 12),
    _scene("decoder-64", "64 bytes", 64),
)


def growth() -> None:
    """Show that time grows with the bytes, not with their square."""
    print("one event, twice the bytes: how many times the time (2 is linear)\n")
    cases: dict[str, tuple[bytes, int]] = {
        "one line, a byte at a time": (b"x", 1),
        "one line, 16 bytes at a time": (b"x", 16),
        "tiny lines, a byte at a time": (b"a\ndata:", 1),
        "tiny lines, 64 KiB at a time": (b"a\ndata:", 1 << 16),
        "lines of CR, 7 bytes at a time": (b"a\rdata:", 7),
    }
    run = ours()
    for title, (pattern, size) in cases.items():
        medians = []
        for length in (1 << 20, 2 << 20):
            stream = b"data:" + pattern * (length // len(pattern)) + b"\n\n"
            chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
            medians.append(statistics.median(timed(run, chunks)[0] for _ in range(3)))
        print(f"{title:>30}  {medians[1] / medians[0]:.2f}")


def main() -> None:
    growth()


if __name__ == "__main__":
    main()
