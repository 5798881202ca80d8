"""Processes to be measured: started, talked to in lines of JSON, and ended.

Law: a process is measured from outside, by what the kernel has booked on it, and never
by itself. Each is ended by whoever started it, and ends by itself when that is gone.
"""

from __future__ import annotations

__all__ = ("Child", "Redis", "cpu_seconds", "memory", "waited_seconds")

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from .scene import ROOT

LIMIT: Final = 300.0
"""Seconds that an answer may take: a benchmark that hangs ends."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process *pid*, of all its threads.

    By its CPU clock, which counts nanoseconds; ``/proc/PID/stat`` counts hundredths.
    """
    return time.clock_gettime((~pid << 3) | 2)


def waited_seconds(pid: int) -> float:
    """Return for how long threads of *pid* had work to do, and no core to do it on."""
    waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            waited += int(path.read_text().split()[1])
    return waited / 1e9


def memory(pid: int) -> int:
    """Return the bytes of memory of *pid*, pages that are shared in proportion."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) * 1024
    raise RuntimeError("the system does not tell the proportional set size")


def _command(target: str, options: dict[str, Any]) -> list[str]:
    if target.endswith(".mjs"):
        return ["node", "--expose-gc", str(ROOT / target)]
    return [sys.executable, "-m", "benchmarks.worker", target, json.dumps(options)]


class Child:
    """A worker process; a context manager that starts and ends it.

    Args:
        target: What runs in it, as ``module:function``; see `benchmarks.worker`. Or the
            path of a program for Node, which speaks as that does.
        options: Its keywords; ``loop`` is the module of another loop than asyncio's.

    Attributes:
        pids: The processes that it says serve; itself, mostly.
    """

    def __init__(self, target: str, **options: Any) -> None:
        self._target = target
        self._words = _command(target, options)
        self._rest = b""
        self.pids: list[int] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self.pids = self.answer()
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(5 if kind is None else 0.5)

    def _end(self, seconds: float) -> None:
        """Let it end, for so long; then make it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in {*self.pids, self._process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def send(self, method: str, **arguments: Any) -> None:
        """Have *method* called; `answer` returns what it returns."""
        assert self._process.stdin is not None
        line = json.dumps([method, arguments]).encode() + b"\n"
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the next answer.

        Raises:
            RuntimeError: it failed, has ended, or takes too long.
        """
        answer = json.loads(self._line())
        if "error" in answer:
            raise RuntimeError(f"{self._target} failed:\n{answer['error']}")
        return answer["result"]

    def ask(self, method: str, **arguments: Any) -> Any:
        """Call *method*; return what it returns."""
        self.send(method, **arguments)
        return self.answer()

    def tidy(self) -> None:
        """Have a server collect its garbage; see `benchmarks.actor.Server.tidy`."""
        self.ask("tidy")

    def cpu(self) -> float:
        """Return the CPU time of those who serve, in seconds."""
        return sum(map(cpu_seconds, self.pids))

    def memory(self) -> int:
        """Return their memory, in bytes."""
        return sum(map(memory, self.pids))

    def waited(self) -> float:
        """Return the seconds that they waited for a core."""
        return sum(map(waited_seconds, self.pids))

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + LIMIT
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(until - time.monotonic()):
                    raise RuntimeError(f"{self._target} does not answer")
                data = os.read(self._process.stdout.fileno(), 1 << 20)
                if not data:
                    raise RuntimeError(f"{self._target} has ended")
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class Redis:
    """A ``redis-server`` that keeps nothing on disk; a context manager.

    Args:
        folder: Where it may put its files.

    Attributes:
        url: Where it is reached.
        pid: The process's.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._port: int = sock.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}"
        self._folder = folder

    def __enter__(self) -> Self:
        binary = shutil.which("redis-server")
        assert binary is not None
        words = f"--bind 127.0.0.1 --port {self._port} --appendonly no --logfile log"
        self._process = subprocess.Popen(
            [binary, *words.split(), "--save", "", "--dir", str(self._folder)]
        )
        self.pid = self._process.pid
        until = time.monotonic() + 15
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                raise RuntimeError("redis-server does not start")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
