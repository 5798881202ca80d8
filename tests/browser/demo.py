"""The demo as its users start it: a process, on a port that it says itself.

Law: it is ended as a user ends it, by an interrupt, and has to end by that alone;
unless a test kills it.
"""

from __future__ import annotations

__all__ = ("Demo", "demo")

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_START: Final = 15.0
_STOP: Final = 10.0


class Demo:
    """The demo, which may be ended and started again at the same address.

    Args:
        data: The file in which the chat is kept.

    Attributes:
        base: The address that it has said.
    """

    def __init__(self, data: Path) -> None:
        self.base = ""
        self._data = data
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and return when it has said where it is."""
        port = self.base.rpartition(":")[2] or "0"
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aiohttp_sse_routes", "demo"),
            *("--port", port, "--data", str(self._data)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_START):
            said = await process.stdout.readline()
        found = re.search(rb"http://\S+:\d+", said)
        assert found, f"it did not say where it is: {said!r}"
        assert self.base in ("", found[0].decode()), "its port was taken meanwhile"
        self.base = found[0].decode()

    async def end(self) -> None:
        """End it as Ctrl-C does."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(_STOP):
            _, status = await asyncio.gather(process.stdout.read(), process.wait())
        assert 0 == status
        self._process = None

    async def kill(self) -> None:
        """End it without a word, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def demo(data: Path) -> AsyncIterator[Demo]:
    """Run the demo, whose chat is kept in *data*."""
    running = Demo(data)
    try:
        await running.start()
        yield running
        await running.end()
    finally:
        await running.kill()
