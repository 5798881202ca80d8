"""A client of the multiplexed endpoint, on a raw socket, that keeps its places.

Law: nothing of the package but the decoder takes part in reading. What has come is
taken as it comes: in the midst of a chunk too, as browsers do.
"""

from __future__ import annotations

__all__ = ("Multiplexed", "Sub")

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp_sse_routes.decoder import DecodedEvent, Decoder

from .helpers import RawClient, Served


class Sub:
    """One of the streams.

    Attributes:
        path: Its URL.
        events: The data of every event that is not one of ours.
        replayed: Those of them that were replayed.
        control: Every one of ours: its name, and its data.
        last_event_id: Where the client has come to.
        ended: Whether the client is not to come back for it.
        over: Whether the present connection has no more of it.
    """

    def __init__(self, path: str, last_event_id: str = "") -> None:
        self.path = path
        self.events: list[str] = []
        self.replayed: list[str] = []
        self.control: list[tuple[str, Any]] = []
        self.last_event_id = last_event_id
        self.ended = False
        self.over = False
        self._decoder = Decoder()

    def begin(self) -> None:
        """Begin on a new connection."""
        self.over = False
        self._is_live = False
        self._decoder = Decoder(self.last_event_id)

    @property
    def gaps(self) -> list[str]:
        """The reasons of the gaps it was told."""
        return [data["reason"] for name, data in self.control if name == "sse-gap"]

    @property
    def status(self) -> dict[str, Any] | None:
        """What it was answered with in place of a stream."""
        found = [data for name, data in self.control if name == "sse-status"]
        return found[-1] if found else None

    @property
    def names(self) -> list[str]:
        """The names of the control events, in order."""
        return [name for name, _ in self.control]

    def feed(self, line: bytes) -> None:
        """Take a line, its end included."""
        assert not self.over, f"behind its end: {line!r}"
        for event in self._decoder.feed(line):
            self._take(event)
        self.last_event_id = self._decoder.last_event_id

    def _take(self, event: DecodedEvent) -> None:
        if not event.type.startswith("sse-"):
            # What is replayed is the beginning of a connection.
            assert not (event.replayed and self._is_live)
            self._is_live = not event.replayed
            self.events.append(event.data)
            if event.replayed:
                self.replayed.append(event.data)
            return
        self.control.append((event.type, json.loads(event.data)))
        if event.type in ("sse-eof", "sse-status"):
            self.over = True
        if event.type in ("sse-end", "sse-status"):
            self.ended = True


class Multiplexed:
    """Streams on one connection, over any number of connections.

    Args:
        served: The server.
        paths: The URL of each stream, by its key.
        headers: Sent with each connection.
        version: HTTP's.

    Attributes:
        subs: The streams, by key.
        comments: How many comments came that are no stream's.
        status: The present response's.
        head: Its first lines.
        body: Its body, as far as it was taken.
        complete: Whether it came to its end.
        connections: How many there were.
    """

    def __init__(
        self,
        served: Served,
        paths: Mapping[str, str],
        *headers: str,
        version: str = "1.1",
    ) -> None:
        self.served = served
        self.subs = {key: Sub(path) for key, path in paths.items()}
        self.headers = headers
        self.version = version
        self.comments = 0
        self.connections = 0
        self.client: RawClient | None = None

    def __getitem__(self, key: str) -> Sub:
        return self.subs[key]

    async def connect(self, *, rcvbuf: int | None = None) -> RawClient:
        """Ask for all that has not ended, each with its place."""
        self.connections += 1
        self.status, self.head, self.body = 0, b"", b""
        self.complete = False
        self._raw = self._line = b""
        self._left = 0  # of the present chunk, and the line end behind it
        self._current: Sub | None = None
        self._between = False  # behind a comment, which is no stream's
        streams = []
        for key, sub in self.subs.items():
            if not sub.ended:
                sub.begin()
                streams.append({"key": key, "url": sub.path})
                if sub.last_event_id:
                    streams[-1]["lastEventId"] = sub.last_event_id
        body = json.dumps({"streams": streams}).encode()
        self.client = await RawClient.connect(self.served, rcvbuf=rcvbuf)
        lines = [
            f"POST /_sse/streams HTTP/{self.version}",
            "Host: test",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *self.headers,
        ]
        await self.client.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.client

    async def read(self, limit: int = 65536) -> bool:
        """Take what has come; return whether there was anything."""
        assert self.client is not None
        try:
            data = await self.client.read(limit)
        except ConnectionError:
            return False
        self.feed(data)
        return bool(data)

    async def read_until(self, condition: Callable[[], object]) -> None:
        """Read until *condition* holds."""
        while not condition():
            assert await self.read(), f"ended: {self.body!r}"

    async def read_all(self) -> None:
        """Read until the response, or the connection, ends."""
        while not self.complete and await self.read():
            pass

    async def finish(self) -> None:
        """Come back until every stream has ended."""
        while not all(sub.ended for sub in self.subs.values()):
            assert self.connections < 1000
            client = await self.connect()
            await self.read_all()
            client.close()

    def feed(self, data: bytes) -> None:
        """Take *data* as it came from the socket."""
        self._raw += data
        if not self.status:
            head, mark, rest = self._raw.partition(b"\r\n\r\n")
            if not mark:
                return
            self.head, self._raw = head, rest
            self.status = int(head.split()[1])
        if b"chunked" not in self.head:
            self._take(self._raw)
            self._raw = b""
            return
        while self._raw and not self.complete:
            if not self._left:
                size, mark, rest = self._raw.partition(b"\r\n")
                if not mark:
                    return
                self._raw, length = rest, int(size, 16)
                self.complete = length == 0
                self._left = length + 2
            part = self._raw[: max(0, self._left - 2)]
            self._take(part)
            # The line end behind a chunk is no part of it.
            gone = len(part) or min(len(self._raw), self._left)
            self._left -= gone
            self._raw = self._raw[gone:]

    def _take(self, body: bytes) -> None:
        self.body += body
        if self.status != 200:
            return
        *lines, self._line = (self._line + body).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"stream":
                self._current = self.subs[value.decode()]
            elif line == b":":
                self.comments += 1
                self._between = True
            elif self._between and not line:
                self._between = False
            else:
                assert self._current is not None, f"whose is {line!r}?"
                self._current.feed(line + b"\n")
