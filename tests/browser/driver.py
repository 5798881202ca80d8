"""Real browsers for tests: one process of Node a browser, which `driver.js` is.

Law: a browser is started once and serves all tests, each in a tab that shares nothing
with the others. Nothing here waits but for what a browser says, so that the loop that
runs the servers goes on. Whatever happens, no process is left: the driver ends with its
stdin, and what is still there when it has gone is killed and reported.
"""

from __future__ import annotations

__all__ = ("Browser", "Tab", "why_not")

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import psutil

_HERE: Final = Path(__file__).parent
_PROGRAMS: Final = {"chromium": "chromium", "firefox": "firefox-esr"}
_START: Final = 30.0
_STOP: Final = 10.0
# A browser that is stuck fails its test before pytest's own limit does.
_ANSWER: Final = 30.0


def why_not(name: str) -> str | None:
    """Return why the browser *name* cannot be driven; None if it can."""
    if shutil.which("node") is None:
        return "Node is not installed (as root: apt-get install nodejs npm)"
    if not (_HERE / "node_modules" / "puppeteer-core").is_dir():
        return "puppeteer-core is not installed (make node)"
    program = _PROGRAMS[name]
    if shutil.which(program) is None:
        return f"{program} is not installed (as root: apt-get install {program})"
    return None


class BrowserError(Exception):
    """A browser could not do what it was told."""


class Browser:
    """A browser that is driven.

    Args:
        name: ``chromium`` or ``firefox``.
        folder: An empty folder for its profile.

    Attributes:
        version: What it calls itself.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._ids = itertools.count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._ended = False
        program = shutil.which(_PROGRAMS[name])
        assert program is not None, why_not(name)
        self._noise = (folder / "driver.log").open("w+b")
        profile = folder / "profile"
        profile.mkdir()
        self._process = subprocess.Popen(
            ["node", _HERE / "driver.js", name, program, profile],
            cwd=_HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            start_new_session=True,
        )
        self._ready: Future[str] = Future()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.version = self._ready.result(_START)
        except BaseException:
            self.close()
            raise

    async def open(
        self, *, beside: Tab | None = None, width: int = 1280, height: int = 800
    ) -> Tab:
        """Open a tab, in a context of its own or in that of the tab *beside*."""
        number = await self.tell(
            "open", beside=beside and beside.number, width=width, height=height
        )
        return Tab(self, number)

    async def tell(self, command: str, **options: Any) -> Any:
        """Have *command* done and return its answer."""
        number = next(self._ids)
        answer: Future[Any] = Future()
        line = json.dumps({"id": number, "command": command, **options}) + "\n"
        with self._lock:
            if self._ended:
                raise BrowserError(self._obituary())
            self._answers[number] = answer
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will be that it ended
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        try:
            async with asyncio.timeout(_ANSWER):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise BrowserError(f"{self.name} does not answer: {line}") from None

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Let its processes stand still, as when a machine sleeps; not the driver."""
        processes = self._processes()
        try:
            for process in processes:
                # Some come and go at their own pace.
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def close(self) -> None:
        """End the browser and its driver.

        Raises:
            BrowserError: a process had to be killed.
        """
        mine = self._processes()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(_STOP)
        self._process.stdout.close()
        self._noise.close()
        mine.update(self._processes())
        _, left = psutil.wait_procs(mine, timeout=_STOP / 2)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        if left:
            raise BrowserError(f"{self.name} left processes behind: {left}")

    def _read(self) -> None:
        """Hand out the answers, in a thread: a test's loop ends with the test."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set_result(message["ready"])
                continue
            future = self._answers.pop(message["id"])
            if not future.set_running_or_notify_cancel():
                continue
            if "error" in message:
                future.set_exception(BrowserError(message["error"]))
            else:
                future.set_result(message["value"])
        with self._lock:
            self._ended = True
        for future in (self._ready, *self._answers.values()):
            if not future.done():
                future.set_exception(BrowserError(self._obituary()))

    def _obituary(self) -> str:
        self._noise.seek(0)
        return f"{self.name}'s driver has ended: {self._noise.read().decode()}"

    def content_processes(self) -> list[psutil.Process]:
        """Return the processes that pages are in; of Firefox."""
        found: list[psutil.Process] = []
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-1:] == ["tab"]:
                    found.append(process)
        return found

    def _processes(self) -> set[psutil.Process]:
        """Return what runs for us: the driver's offspring, and who has our profile."""
        found: set[psutil.Process] = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(psutil.Process(self._process.pid).children(recursive=True))
        profile = str(self._folder)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(profile in argument for argument in process.cmdline()):
                    found.add(process)
        found.discard(psutil.Process())
        return {process for process in found if process.pid != self._process.pid}


class Tab:
    """A tab of a browser.

    Args:
        browser: Its browser.
        number: What the driver knows it by.
    """

    def __init__(self, browser: Browser, number: int) -> None:
        self.browser = browser
        self.number = number

    async def show(self) -> None:
        """Make it the one that is seen; others of its window are hidden."""
        await self._tell("show")

    async def go(self, url: str, *, timeout: float = 10.0) -> int | None:
        """Load *url*, to its ``load`` event; return the status."""
        status: int | None = await self._tell("go", timeout, url=url)
        return status

    async def reload(self, *, timeout: float = 10.0) -> None:
        """Reload the page, to its ``load`` event."""
        await self._tell("reload", timeout)

    async def evaluate(self, code: str) -> Any:
        """Return what the expression *code* comes to, awaited if it is a promise."""
        return await self._tell("evaluate", code=code)

    async def run(self, code: str) -> None:
        """Run the statement *code*."""
        await self._tell("evaluate", code=f"{{ {code} }} undefined")

    async def until(self, code: str, *, timeout: float = 10.0) -> Any:
        """Wait until the expression *code* is true, across navigations; return it."""
        return await self._tell("until", timeout, code=code)

    async def freeze(self, frozen: bool = True) -> None:
        """Freeze the page, or thaw it; in Chromium only."""
        await self._tell("freeze", frozen=frozen)

    async def kill_workers(self) -> int:
        """End the shared workers of its context; in Chromium only."""
        count: int = await self._tell("killWorkers")
        return count

    async def crash(self) -> None:
        """End the process that it is in, with all that is in it; in Firefox only.

        No protocol says which one that is: it is the one that works when the page does.
        """
        before = {one: one.cpu_times().user for one in self.browser.content_processes()}
        await self.run("const end = Date.now() + 500; while (Date.now() < end);")
        processes = [one for one in before if one.is_running()]
        max(processes, key=lambda one: one.cpu_times().user - before[one]).kill()

    async def offline(self, is_offline: bool) -> None:
        """Cut the page off the network, as its browser sees it, or connect it again."""
        await self._tell("offline", isOffline=is_offline)

    async def click(self, selector: str) -> None:
        """Click the element at *selector*."""
        await self._tell("click", selector=selector)

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page to *path*."""
        await self._tell("screenshot", path=str(path))

    async def messages(self) -> list[dict[str, str]]:
        """Return what has come on the console, and what nobody caught."""
        messages: list[dict[str, str]] = await self._tell("messages")
        return messages

    async def close(self) -> None:
        """Close it."""
        await self._tell("close")

    async def _tell(
        self, command: str, timeout: float | None = None, **options: Any
    ) -> Any:
        if timeout is not None:
            options["timeout"] = timeout * 1000
        return await self.browser.tell(command, tab=self.number, **options)
