"""HTTP/2 before a server: what browsers meet in production, and aiohttp does not speak.

Law: bytes go through as they are; on which connection a stream has come is noted.
"""

from __future__ import annotations

__all__ = ("Terminator", "terminator_before")

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trustme

_TERMINATOR: Final = Path(__file__).with_name("terminator.js")


class Terminator:
    """What speaks TLS and HTTP/2 with browsers, and HTTP/1.1 with the server.

    Args:
        base: Its address.

    Attributes:
        carriers: For each stream that has begun, the number of its connection.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.carriers: list[int] = []


@asynccontextmanager
async def terminator_before(
    target: int, authority: trustme.CA, folder: Path
) -> AsyncIterator[Terminator]:
    """Run a terminator before the port *target*; *folder* is for its certificate."""
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    certificate.private_key_pem.write_to_path(key)
    process = await asyncio.create_subprocess_exec(
        *("node", _TERMINATOR, str(target), chain, key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout
    port = int(await lines.readline())
    terminator = Terminator(f"https://127.0.0.1:{port}")

    async def listen() -> None:
        while line := await lines.readline():
            terminator.carriers.append(int(line))

    listening = asyncio.create_task(listen())
    try:
        yield terminator
    finally:
        process.stdin.close()
        await process.wait()
        await listening
