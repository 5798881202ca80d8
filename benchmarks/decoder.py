"""Decoder throughput beside other Python clients' parsers, in one run.

Run it in an environment of its own that has this package and the peers; what is not
installed is skipped::

    pip install -e . httpx httpx-sse sseclient-py aiohttp-sse-client
    python benchmarks/decoder.py

Each peer gets the same stream in the same chunks, by the door it has: httpx-sse an
`httpx.Response` made of them, sseclient-py the chunks themselves, aiohttp-sse-client an
`aiohttp.StreamReader` that holds them, since it reads its lines from one. Rounds
alternate; times are CPU time, and ratios are medians over the rounds, peer to ours, of
the same round. Events are counted, and a decoder that finds another number is named.
"""

from __future__ import annotations

__all__ = ("main",)

import argparse
import asyncio
import gc
import importlib
import importlib.metadata
import logging
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from aiohttp_sse_routes.decoder import Decoder

Run = Callable[[list[bytes]], int]


def short(count: int) -> bytes:
    return b"".join(b"data: hello %d\n\n" % n for n in range(count))


def full(count: int) -> bytes:
    return b"".join(
        b'id: sse1.l.k3j2h1g0.%d\nevent: price\ndata: {"symbol":"ABC","price":%d.25,'
        b'"time":"2026-01-01T12:00:00Z","volume":%d}\n\n' % (n, n % 997, n)
        for n in range(count)
    )


def lines(count: int) -> bytes:
    row = b'data: <div class="row"><b>name</b><i>value</i></div>\n'
    return b"".join(b"id: %d\nevent: html\n%b\n" % (n, row * 20) for n in range(count))


def unicode(count: int) -> bytes:
    text = "data: Über den Wolken, 日本語のテキスト 🎉 Grüße\n\n".encode()
    return b"".join(b"id: %d\n%b" % (n, text) for n in range(count))


def crlf(count: int) -> bytes:
    return full(count).replace(b"\n", b"\r\n")


def heartbeats(count: int) -> bytes:
    return b"".join(b":\n\ndata: tick %d\n\n" % n for n in range(count))


STREAMS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "short": (short, 40_000),
    "full": (full, 20_000),
    "20 lines": (lines, 2_000),
    "unicode": (unicode, 20_000),
    "crlf": (crlf, 20_000),
    "heartbeats": (heartbeats, 40_000),
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


PEERS: dict[str, Callable[[], Run]] = {
    "httpx-sse": httpx_sse,
    "sseclient-py": sseclient_py,
    "aiohttp-sse-client": aiohttp_sse_client,
}


def timed(run: Run, chunks: list[bytes]) -> tuple[float, int]:
    gc.collect()
    start = time.process_time()
    count = run(chunks)
    return time.process_time() - start, count


def chunks_of(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def installed() -> dict[str, Run]:
    runs = {"ours": ours()}
    for name, make in PEERS.items():
        try:
            runs[name] = make()
        except ImportError as exc:
            print(f"{name}: skipped, not installed ({exc})")
        else:
            print(f"{name} {importlib.metadata.version(name)}")
    return runs


def compare(runs: dict[str, Run], size: int, rounds: int, scale: float) -> None:
    print(f"\n{size:,} byte chunks: ours, then each peer's time by ours\n")
    for title, (make, count) in STREAMS.items():
        count = int(count * scale)
        stream = make(count)
        chunks = chunks_of(stream, size)
        times: dict[str, list[float]] = {name: [] for name in runs}
        found = dict.fromkeys(runs, count)
        for at in range(rounds + 1):
            # Whoever is first in a round meets other caches: take turns.
            order = list(runs) if at % 2 else list(reversed(runs))
            for name in order:
                seconds, found[name] = timed(runs[name], chunks)
                if at:  # the first round warms up
                    times[name].append(seconds)
        best = statistics.median(times["ours"])
        print(
            f"{title:>10}  {count / best:>9,.0f} events/s "
            f"{len(stream) / best / 1e6:>6.1f} MB/s",
            end="",
        )
        for name in runs:
            if name == "ours":
                continue
            pairs = zip(times[name], times["ours"], strict=True)
            ratio = statistics.median(peer / our for peer, our in pairs)
            print(f"   {name} {ratio:.2f} x", end="")
        print()
        for name, number in found.items():
            if number != count:
                print(f"{'':>10}  {name} found {number:,} events of {count:,}")


def growth() -> None:
    """Show that time grows with the bytes, not with their square."""
    print("\none event, twice the bytes: how many times the time (2 is linear)\n")
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
            chunks = chunks_of(stream, size)
            medians.append(statistics.median(timed(run, chunks)[0] for _ in range(3)))
        print(f"{title:>30}  {medians[1] / medians[0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the streams")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << 16, 1460])
    args = parser.parse_args()
    # sseclient-py formats a line for each event where debug logging is on.
    logging.disable(logging.DEBUG)
    print(f"{platform.python_implementation()} {platform.python_version()}")
    runs = installed()
    for size in args.sizes:
        compare(runs, size, args.rounds, args.scale)
    growth()


if __name__ == "__main__":
    main()
