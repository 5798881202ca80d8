"""A real Redis of the tests' own: started on a free port, killed, restarted, stopped.

Law: each server lives in a folder of its own and is ended by its own process id; one
that is not installed skips the test and says so.
"""

from __future__ import annotations

__all__ = ("Proxy", "RedisServer", "free_port", "needs_redis", "port_of_its_own")

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

BINARY: Final = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")

_START_SECONDS: Final = 15.0


class RedisServer:
    """A ``redis-server`` process; a context manager that starts and stops it.

    Args:
        folder: Where it keeps its files; made if it is not there.
        options: Options of ``redis.conf`` by name, with ``_`` for ``-``, as in
            ``appendonly="yes"``. Without any it keeps nothing on disk.

    Attributes:
        port: Its TCP port on 127.0.0.1, the same after a restart.
        socket_path: Its UNIX socket.
    """

    def __init__(self, folder: Path, **options: str | int) -> None:
        if BINARY is None:
            pytest.skip("redis-server is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = options
        self.port = port_of_its_own(self)
        # The path of a UNIX socket is at most about 100 bytes long: a folder of pytest
        # can be longer, so that it is given relative to the server's own folder.
        self.socket_path = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, without a database."""
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        """Start it with what is in its folder, and wait until it answers.

        Args:
            wait: Whether to wait.
        """
        assert BINARY is not None
        assert self._process is None, "it runs already"
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": "s",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "appendfsync": "always",
            "repl_diskless_sync_delay": 0,
            "repl_diskless_load": "disabled",
            "daemonize": "no",
            "logfile": "log",
            # Of its timer in a second: by that it notices that it is to end.
            "hz": 100,
            **self.options,
        }
        words: list[str] = [BINARY]
        for name, value in options.items():
            words.append("--" + name.replace("_", "-"))
            words += str(value).split(" ") if value != "" else [""]
        self._process = subprocess.Popen(words, cwd=self.folder)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it answers, and has loaded its data."""
        limit = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > limit:
                log = self.folder / "log"
                text = log.read_text() if log.exists() else ""
                raise AssertionError(f"redis-server did not start: {text[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            reply = self.command("PING")
        except (OSError, EOFError):
            return False
        # One that asks for a password, or is a replica, is there too.
        return reply.startswith((b"+PONG", b"-NOAUTH", b"-MASTERDOWN"))

    def command(self, *words: str | int) -> bytes:
        """Send one command on a connection of its own; return the raw reply.

        It blocks for a moment, so it is for what a test does to a server, not for what
        it measures.

        Args:
            words: The command, as in ``command("CLIENT", "KILL", "TYPE", "pubsub")``.
                A server with a password wants ``auth`` as `authorised`.
        """
        lines = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = str(word).encode()
            lines.append(b"$%d\r\n%b\r\n" % (len(data), data))
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.sendall(b"".join(lines))
            return _reply(sock)

    def replication(self) -> dict[str, str]:
        """Return what it says of replicas and masters."""
        lines = self.command("INFO", "replication").decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def kill(self) -> None:
        """End it as a power failure would: SIGKILL."""
        process = self._process
        assert process is not None, "it does not run"
        self._process = None
        process.kill()
        process.wait()

    def restart(self, *, empty: bool = False) -> None:
        """Start it again after `kill` or `stop`, or kill it and start it again.

        Args:
            empty: Whether what it had kept on disk is thrown away before.
        """
        if self._process is not None:
            self.kill()
        if empty:
            self.erase()
        self.start()

    def erase(self) -> None:
        """Throw away what it keeps on disk; it must not run."""
        assert self._process is None, "it runs"
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def pause(self) -> None:
        """Hang: SIGSTOP. Its connections stay open, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in good order, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Proxy:
    """An address that can be moved from one server to another, as a failover does.

    Attributes:
        port: The port on 127.0.0.1 at which it is reached.
        target: The port to which new connections go; 0 refuses them.
        swallow: What the server sends with these bytes in it never arrives.
        swallowed: How often that was.
        replace: What the server sends is changed: the one into the other, equally long.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.swallow: bytes | None = None
        self.swallowed = 0
        self.replace = (b"", b"")
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of whatever is behind it, without a database."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def move(self, target: int) -> None:
        """Lead to *target* from now on; what is open is cut."""
        self.target = target
        await self.cut()

    async def cut(self) -> None:
        """Cut all connections that go through it."""
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._lead(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _lead(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not self.target:
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            ways = (_copy(reader, back), self._answer(there, writer))
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            back.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self.swallow is not None and self.swallow in data:
                self.swallowed += 1
                continue
            old, new = self.replace
            writer.write(data.replace(old, new) if old else data)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def port_of_its_own(owner: object) -> int:
    """Return a TCP port of 127.0.0.1 that nobody else is given while *owner* lives."""
    sock = socket.socket()
    # Who listens there says the same, as Redis and asyncio do, and so may.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    weakref.finalize(owner, os.close, sock.detach())
    return port


def _reply(sock: socket.socket) -> bytes:
    """Return one reply as it came; an array with all that is in it."""
    data = b""
    while True:
        with contextlib.suppress(IndexError, ValueError):
            return data[: _length(data, 0)]
        more = sock.recv(65536)
        if not more:
            raise EOFError("the server closed the connection")
        data += more


def _length(data: bytes, start: int) -> int:
    """Return where the reply at *start* ends; ValueError where it is not all there."""
    line_end = data.index(b"\r\n", start) + 2
    kind, rest = data[start : start + 1], data[start + 1 : line_end - 2]
    if kind == b"$" and int(rest) >= 0:
        line_end += int(rest) + 2
        if line_end > len(data):
            raise ValueError("more is to come")
    elif kind == b"*":
        for _ in range(int(rest)):
            line_end = _length(data, line_end)
    return line_end
