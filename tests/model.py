"""A model of what clients of channels are promised, and clients that note it all.

Law: the oracle knows what was published, by the number that the store gave it, and
nothing of how it is stored or delivered. Each client must have seen, over all its
connections, each event of its channels once and in order, or a gap where one is
missing; and no gap where none is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp_sse_routes.cursor import parse
from aiohttp_sse_routes.decoder import DecodedEvent, Decoder

Key = tuple[int, int]
"""A number in the log; before it the count of logs that began with 1 again."""


class Published(NamedTuple):
    """What is known of one event."""

    channel: str
    number: int


class Oracle:
    """What was published.

    Args:
        numbers_restart: Whether a new generation counts from 1 again.
        may_reset: Whether anything was done that loses the log.
    """

    def __init__(self, *, numbers_restart: bool, may_reset: bool) -> None:
        self.may_reset = may_reset
        self._restart = numbers_restart
        self._at = 0  # which of a client's items is being checked
        self._generations: list[str] = []
        self.log: dict[Key, Published] = {}
        self.generation_of: dict[Key, int] = {}

    def key(self, cursor: str) -> Key:
        """Return the number that *cursor* names."""
        place = parse(cursor)
        assert place is not None
        return (self._generation(place.log) if self._restart else 0), place.seq

    def _generation(self, name: str) -> int:
        if name not in self._generations:
            self._generations.append(name)
        return self._generations.index(name)

    def note(self, cursor: str, channel: str, number: int) -> None:
        """Note that an event is in the log, at *cursor*."""
        key = self.key(cursor)
        known = self.log.setdefault(key, Published(channel, number))
        assert known == (channel, number), f"two events have the id {cursor}"
        place = parse(cursor)
        assert place is not None
        self.generation_of[key] = self._generation(place.log)

    def check(self, client: ModelClient) -> None:
        """Fail where *client* has not seen what it should have."""
        try:
            self._check(client)
        except AssertionError as exc:
            lately = "\n".join(map(str, client.seen[: self._at + 1][-8:]))
            raise AssertionError(f"{exc}\nbefore that it had:\n{lately}") from None

    def _check(self, client: ModelClient) -> None:
        channels = set(client.channels)
        wanted = sorted(k for k, e in self.log.items() if e.channel in channels)
        place: Key | None = None
        seen: set[Key] = set()
        missing: set[Key] = set()

        def between(after: Key, through: Key) -> list[Key]:
            return wanted[bisect_right(wanted, after) : bisect_right(wanted, through)]

        for self._at, item in enumerate(client.seen):
            where = f"{client}: {item}"
            if item.type == "sse-hello":
                if place is None:
                    place = self.key(item.last_event_id)
                continue
            assert place is not None, f"{where} before hello"
            key = self.key(item.last_event_id)
            if item.type == "sse-gap":
                reason = json.loads(item.data)["reason"]
                missing |= {*between(place, key)} - seen
                self._check_gap(where, reason, missing)
                missing.clear()
                place = max(place, key)
                if reason == "reset":
                    present = self._generation(parse(item.last_event_id).log)  # type: ignore[union-attr]
                    old = [k for k in wanted if self.generation_of.get(k, 0) < present]
                    seen.update(old)
            elif item.type == "sse-cursor":
                missing |= {*between(place, key)} - seen
                place = max(place, key)
            else:
                data = json.loads(item.data)
                assert data["c"] in channels, f"{where} is of another's channel"
                assert key not in seen, f"{where} came twice"
                assert key > place, f"{where} came behind {place}"
                missing |= {*between(place, key)} - {key} - seen
                seen.add(key)
                place = key
        if missing:
            first = min(missing)
            self._at = next(
                index
                for index, item in enumerate(client.seen)
                if item.type not in ("sse-hello", "sse-gap")
                and self.key(item.last_event_id) > first
            )
            raise AssertionError(f"missed without a word: {first} of {client}")

    def _check_gap(self, where: str, reason: str, missing: set[Key]) -> None:
        if reason == "reset":
            assert self.may_reset, f"{where}: nothing was lost"
        else:
            assert reason in ("expired", "slow"), where
            assert missing, f"{where}: nothing is missing"


class ModelClient:
    """A client that is cut at random, comes back, and notes what it sees.

    Args:
        number: Its name.
        channels: What it follows.
        rng: What is done at random.
        ports: Where it may connect; changed by who starts and stops servers.

    Attributes:
        greeted: Set when it was connected once.
        calm: Whether it is to be cut no more.
        knocks_at: The port where it waits for an answer; 0 for none.
    """

    def __init__(
        self,
        number: int,
        channels: Sequence[str],
        rng: random.Random,
        ports: Sequence[int],
    ) -> None:
        self.number = number
        self.channels = channels
        self.seen: list[DecodedEvent] = []
        self.cuts = 0
        self.greeted = asyncio.Event()
        self.calm = False
        self.knocks_at = 0
        self._rng = rng
        self._ports = ports
        self._last_event_id = ""
        self._marked: set[str] = set()

    def __repr__(self) -> str:
        return f"client {self.number} of {','.join(self.channels)}"

    @property
    def done(self) -> bool:
        """Whether it has seen a mark in each of its channels."""
        return self._marked >= set(self.channels)

    async def run(self) -> None:
        """Connect, be cut, and come back until `done`."""
        while not self.done:
            if not self._ports:
                await asyncio.sleep(0.005)
                continue
            with contextlib.suppress(OSError, EOFError):
                await self._connect(self._rng.choice(self._ports))
            self.cuts += 1
            await asyncio.sleep(self._rng.random() * 0.02)

    async def _connect(self, port: int) -> None:
        self.knocks_at = port
        try:
            await self._follow(port)
        finally:
            self.knocks_at = 0

    async def _follow(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            query = "&".join(f"c={name}" for name in self.channels)
            place = self._last_event_id
            lines = [f"GET /f?{query} HTTP/1.0", "Host: test"]
            lines += [f"Last-Event-ID: {place}"] if place else []
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await self._read(reader)
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.knocks_at = 0
        assert head.startswith(b"HTTP/1.0 200"), head
        decoder = Decoder(self._last_event_id)
        patient = self.calm or self._rng.random() < 0.2
        left = 1 << 40 if patient else self._rng.randrange(0, 6000)
        while left > 0 and not self.done:
            data = await reader.read(min(left, 2048))
            if not data:
                return
            left -= len(data)
            for event in decoder.feed(data):
                self._take(event)
            if self.calm and not patient:
                return

    def _take(self, event: DecodedEvent) -> None:
        self._last_event_id = event.last_event_id
        if event.type == "sse-busy":
            return
        self.seen.append(event)
        if event.type == "sse-hello":
            self.greeted.set()
        elif not event.type.startswith("sse-"):
            data: dict[str, Any] = json.loads(event.data)
            if data["n"] < 0:
                self._marked.add(data["c"])
