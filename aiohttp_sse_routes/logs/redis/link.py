"""The connection for commands, many of which are under way at a time.

Law: nothing waits for an answer before it sends the next command. A connection that
does not answer for so long is dropped, and everything that waits on it fails at once;
the next command opens another one.
"""

from __future__ import annotations

__all__ = ("Link",)

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from ...errors import StoreError
from .errors import explained
from .lua import Script
from .scripts import SCRIPTS
from .wire import Server, Wire, packed

# How many answers are read before the loop has its turn.
_TURN: Final = 100


class Link:
    """A connection for commands, opened when the first is sent.

    Args:
        server: Whose.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # With those that are not done with letting go of an old connection.
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._progress = 0.0
        self._silent = False
        self._closed = False

    async def run(
        self, script: Script, keys: Sequence[bytes], *words: bytes | int
    ) -> Any:
        """Run *script*; return what it returns.

        Raises:
            StoreUnavailable: it could not be run, or whether it was is not known.
        """
        args = [b"%d" % len(keys), *keys]
        args += [b"%d" % word if isinstance(word, int) else word for word in words]
        try:
            try:
                return await self._send([b"EVALSHA", script.sha, *args])
            except exceptions.NoScriptError:
                return await self._send([b"EVAL", script.source, *args])
        except exceptions.RedisError as error:
            raise explained(error, self.server.name) from error

    async def ask(self, *words: bytes) -> Any:
        """Return the answer to one command.

        Raises:
            StoreUnavailable: there is none.
        """
        try:
            return await self._send(words)
        except exceptions.RedisError as error:
            raise explained(error, self.server.name) from error

    async def close(self) -> None:
        """Wait for what is under way, for no longer than an answer may take; end."""
        self._closed = True
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=self.server.timeout)
        if self._task is not None:
            self._task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, words: Sequence[bytes]) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreError("this RedisStore is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._task is None:
            self._task = loop.create_task(self._live())
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        if not self._waiting:
            self._progress = loop.time()
            self._watch(self.server.timeout)
        self._waiting.append(future)
        self._out.append(packed(words))
        self._more.set()
        return future

    # -- the connection's life -------------------------------------------------------

    async def _live(self) -> None:
        wire = None
        failure: StoreError = StoreError("this RedisStore was closed")
        try:
            wire = await self.server.connect()
            await self._teach(wire)
            self._progress = asyncio.get_running_loop().time()
            writer = asyncio.create_task(self._write(wire))
            try:
                await self._read(wire)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        except asyncio.CancelledError:
            if self._silent:
                failure = explained(TimeoutError(), self.server.name)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is explained
            failure = explained(error, self.server.name)
        finally:
            # Before anything is awaited: who is told may send again, on a new one.
            self._end(failure)
            if wire is not None:
                await wire.drop()

    async def _teach(self, wire: Wire) -> None:
        """Make the scripts known; a user who may not is served by EVAL."""
        await wire.send(
            *(packed([b"SCRIPT", b"LOAD", script.source]) for script in SCRIPTS)
        )
        for _ in SCRIPTS:
            try:
                async with asyncio.timeout(self.server.timeout):
                    await wire.receive()
            except exceptions.ResponseError:
                pass

    async def _write(self, wire: Wire) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            out, self._out = self._out, []
            await wire.send(*out)

    async def _read(self, wire: Wire) -> None:
        loop, count = asyncio.get_running_loop(), 0
        while True:
            answer: Any
            try:
                answer = await wire.receive()
            except exceptions.ResponseError as error:
                answer = error
            self._progress = loop.time()
            future = self._waiting.popleft()
            if not future.done():
                if isinstance(answer, exceptions.ResponseError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            count += 1
            if count % _TURN == 0:
                await asyncio.sleep(0)

    def _end(self, failure: StoreError) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._out, self._task, self._silent = [], None, False
        self._more = asyncio.Event()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in waiting:
            if not future.done():
                future.set_exception(failure)

    def _watch(self, seconds: float) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = loop.time() + seconds
            self._timer = loop.call_later(seconds, self._look, due)

    def _look(self, due: float) -> None:
        """Drop the connection if nothing was answered for so long."""
        self._timer = None
        if not self._waiting or self._task is None:
            return
        now = asyncio.get_running_loop().time()
        left = self._progress + self.server.timeout - now
        if left > 0:
            self._watch(left)
        elif now > due + 0.5:
            # The loop stood still, not the server: what it said may lie unread.
            self._watch(0.5)
        else:
            self._silent = True
            self._task.cancel()
