"""Nchan in nginx: this process starts it and publishes by HTTP, as an application does.

Law: what is measured is nginx's worker, and not this process.
"""

from __future__ import annotations

__all__ = ("MODULE", "nchan")

import asyncio
import json
import os
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from .actor import Events, Server, event

MODULE: Final = "/usr/lib/nginx/modules/ngx_nchan_module.so"
"""Where Debian's package has it."""

_CONFIGURATION: Final = """\
load_module {module};
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 40000; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /stream {{
            nchan_subscriber eventsource;
            nchan_channel_id room;
            nchan_subscriber_first_message newest;
            nchan_message_buffer_length 2000;
        }}
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id room;
            nchan_message_buffer_length 2000;
        }}
        location = /ping {{ return 200 "ok"; }}
    }}
}}
"""


class Nchan(Server):
    """An application that publishes to Nchan.

    Args:
        port: Where nginx listens.
        pids: Its workers.
        reader: Of a connection to it.
        writer: As well.
    """

    def __init__(
        self,
        port: int,
        pids: list[int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(port)
        self.pids = pids
        self._reader, self._writer = reader, writer
        self._last = ""

    async def publish(self, events: Events) -> None:
        """See `Server.publish`: a POST an event, pipelined."""
        self._writer.writelines(_post(data) for data in events)
        for _ in events:
            head = await self._reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 20"):
                raise RuntimeError(f"nginx says {head!r}")
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length is not None
            body = await self._reader.readexactly(int(length[1]))
            self._last = body.decode().rpartition("last message id: ")[2].strip()

    async def cursor(self) -> str:
        """Return the place now, which only a publish is told."""
        await self.publish([event(0)])
        return self._last

    async def fill(self, count: int) -> None:
        """Publish *count* events."""
        for first in range(0, count, 100):
            some = range(first, min(first + 100, count))
            await self.publish([event(number) for number in some])


def _post(data: dict[str, Any]) -> bytes:
    body = json.dumps(data, separators=(",", ":")).encode()
    return (
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (len(body), body)


async def _connected(
    port: int, process: asyncio.subprocess.Process
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection, as soon as nginx listens."""
    while process.returncode is None:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
    raise RuntimeError("nginx has ended; its words are above")


async def _workers(master: int) -> list[int]:
    """Return the processes of *master*; it listens before it has them."""
    while not (found := _children(master)):  # noqa: ASYNC110 -- another process's
        await asyncio.sleep(0.02)
    return found


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [*map(int, text.split())]


def _configure(folder: str, port: int) -> str:
    """Write the configuration; return where it is."""
    # A master that is root would give its worker to a user who cannot write here.
    user = "user root;" if os.getuid() == 0 else ""
    path = Path(folder, "nginx.conf")
    path.write_text(
        _CONFIGURATION.format(module=MODULE, user=user, folder=folder, port=port)
    )
    return str(path)


@asynccontextmanager
async def nchan(store: str = "") -> AsyncIterator[Nchan]:
    """Have nginx with one worker."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="sse-nginx-") as folder:
        process = await asyncio.create_subprocess_exec(
            "nginx", "-c", _configure(folder, port), "-p", folder, "-g", "daemon off;"
        )
        try:
            reader, writer = await _connected(port, process)
            yield Nchan(port, await _workers(process.pid), reader, writer)
            writer.close()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
