"""The demo as its users start it: a process, on a port that it says itself.

Law: it is ended as a user ends it, by an interrupt, and has to end by that alone.
"""

from __future__ import annotations

__all__ = ("demo",)

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_START: Final = 15.0
_STOP: Final = 10.0


@asynccontextmanager
async def demo(*arguments: str) -> AsyncIterator[str]:
    """Run the demo with the command line's *arguments*; yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aiohttp_sse_routes", "demo", "--port", "0"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START):
            said = await process.stdout.readline()
        found = re.search(rb"http://\S+:\d+", said)
        assert found, f"it did not say where it is: {said!r}"
        yield found[0].decode()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(_STOP):
            _, status = await asyncio.gather(process.stdout.read(), process.wait())
        assert 0 == status
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
