"""The clients: many sockets in one process, which count what comes and read nothing.

Law: it must be quicker than any server that it loads. So there are no tasks and no
parser: one ``epoll``, one buffer, and a count of one byte that each event has once. It
tells its own CPU time, by which one sees whether it was.
"""

from __future__ import annotations

__all__ = ("MARK", "Load", "load")

import select
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

MARK: Final = b"#"
"""What each event has once, and nothing else on the wire has."""

_SECONDS: Final = 100.0
_TOGETHER: Final = 64


class Load:
    """Clients of one stream."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._buffer = bytearray(1 << 18)
        self._marks = 0

    async def connect(
        self, port: int, path: str, count: int, last_event_id: str = ""
    ) -> None:
        """Open *count* connections; return when each has its headers."""
        request = _request(path, last_event_id)
        left = count
        while left:
            some = min(left, _TOGETHER)
            left -= some
            waiting = {self._open(port, request) for _ in range(some)}
            until = time.monotonic() + _SECONDS
            while waiting:
                waiting.difference_update(self._read(until))

    async def storm(
        self, port: int, path: str, count: int, last_event_id: str, events: int
    ) -> float:
        """Open *count* connections at once, and have *events* come; return the time."""
        request, start = _request(path, last_event_id), time.monotonic()
        for _ in range(count):
            self._open(port, request)
        self._until(events)
        return time.monotonic() - start

    async def watch(self, rounds: int, events: int) -> dict[str, Any]:
        """Receive *events* so many times; return when each time the last had come."""
        cpu, times = time.process_time(), []
        for _ in range(rounds):
            self._until(events)
            times.append(time.monotonic())
        return {"cpu": time.process_time() - cpu, "times": times}

    def close(self) -> None:
        """Close all connections."""
        for sock in self._socks.values():
            sock.close()
        self._poll.close()

    def _until(self, events: int) -> None:
        until = time.monotonic() + _SECONDS
        while self._marks < events:
            self._read(until)
        self._marks -= events

    def _open(self, port: int, request: bytes) -> int:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request)
        sock.setblocking(False)
        number = sock.fileno()
        self._socks[number] = sock
        self._poll.register(number, select.EPOLLIN)
        return number

    def _read(self, until: float) -> set[int]:
        """Read what is there, or wait for it; return who has had anything."""
        ready = self._poll.poll(max(0.0, until - time.monotonic()), 256)
        if not ready:
            raise TimeoutError(f"{self._marks} events have come, and no more")
        buffer, socks, marks = self._buffer, self._socks, 0
        for number, _ in ready:
            size = socks[number].recv_into(buffer)
            if not size:
                raise ConnectionError(f"the server has ended a stream: {buffer[:200]}")
            marks += buffer.count(MARK, 0, size)
        self._marks += marks
        return {number for number, _ in ready}


def _request(path: str, last_event_id: str) -> bytes:
    brought = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{brought}\r\n".encode()


@asynccontextmanager
async def load() -> AsyncIterator[Load]:
    """Have clients; see `benchmarks.worker`."""
    clients = Load()
    try:
        yield clients
    finally:
        clients.close()
