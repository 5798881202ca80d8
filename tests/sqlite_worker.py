"""A process that has an SQLite store, and does what it is told line by line.

Law: it is a program of its own, as an application's worker is; what it answers is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp_sse_routes.errors import StoreError
from aiohttp_sse_routes.logs.entry import Draft, Entry, Fence, Lineage
from aiohttp_sse_routes.logs.sqlite import SQLiteStore

ROOT = Path(__file__).parents[1]


class Told:
    """A follower that keeps what it is given."""

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self.resets = 0

    def on_lineage(self, lineage: Lineage, *, reset: bool) -> None:
        """See `Follower.on_lineage`."""
        self.resets += reset

    def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """See `Follower.on_entries`."""
        self.entries += [[e.seq, e.channel, e.lines.decode()] for e in entries]

    def on_missed(self, floors: Mapping[str, int]) -> None:
        """See `Follower.on_missed`."""

    def on_lost(self, channels: Mapping[str, int]) -> None:
        """See `Follower.on_lost`."""


class Commands:
    """What the process can be told to do."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.store = SQLiteStore(path, max_events=1_000_000)
        self.told = Told()

    async def open(self) -> None:
        """Open the store."""
        await self.store.open(self.told, now=time.monotonic)

    async def close(self) -> None:
        """Close it."""
        await self.store.close()

    async def append(
        self, channel: str, text: str, fence: list[Any] | None = None
    ) -> list[Any]:
        """Append an event."""
        proof = None if fence is None else Fence(*fence)
        done = await self.store.append(channel, [Draft(text.encode())], fence=proof)
        return list(done)

    async def lease(self, name: str, holder: str, seconds: float) -> list[Any]:
        """Ask for a lease."""
        return list(await self.store.lease(name, holder, seconds, wanted=True))

    async def entries(self) -> list[list[Any]]:
        """Return what the follower was given."""
        return self.told.entries

    async def flood(self, writers: int) -> None:
        """Append without end; tell each number, behind the append, by a line."""

        async def write(writer: int) -> None:
            number = 0
            while True:
                text = f"{os.getpid()}.{writer}.{number}"
                done = await self.store.append(f"c{writer % 3}", [Draft(text.encode())])
                os.write(1, f"{done.first} {text}\n".encode())
                number += 1

        await asyncio.gather(*map(write, range(writers)))

    async def limit(self, size: int | None) -> None:
        """Let no file grow over *size*; None for any size."""
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        soft = hard if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async def unprivileged(self) -> None:
        """Have no more rights than anybody."""
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)

    async def fork(self) -> str:
        """Return what an append in a fork of this process raises."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                self.store.append("c", [Draft(b"of a fork")]).send(None)
            except StoreError as error:
                os.write(writing, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        said = os.read(reading, 65536).decode()
        os.close(reading)
        return said


async def serve(path: str) -> None:
    """Do what standard input says, until it ends."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    commands = Commands(path)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, arguments = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            answer["value"] = await getattr(commands, name)(**arguments)
        except StoreError as error:
            answer["error"] = [type(error).__name__, str(error)]
        os.write(1, json.dumps(answer).encode() + b"\n")


class Refused(Exception):
    """The process answered with an error: its name and text."""


class Worker:
    """Such a process, as seen from a test."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, path: Path) -> Worker:
        """Start one that has a store at *path*, not open yet."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.sqlite_worker", str(path)),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            limit=1 << 24,
        )
        return cls(process)

    def tell(self, command: str, /, **arguments: Any) -> None:
        """Have it do something, without waiting for that."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")

    async def answer(self) -> Any:
        """Return what it answers."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(*answer["error"])
        return answer["value"]

    async def do(self, command: str, /, **arguments: Any) -> Any:
        """Return what it answers to being told to do something."""
        self.tell(command, **arguments)
        return await self.answer()

    async def kill(self) -> bytes:
        """End it as no process can prevent; return what it had still said."""
        if self.process.returncode is None:
            self.process.kill()
        return (await self.process.communicate())[0]


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
