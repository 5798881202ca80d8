"""Runs the Python that a page of the documentation shows.

Law: what the reader reads is what runs. The ``python`` blocks of a page are executed in
their order, in one namespace; a block that is tried with ``curl`` in the page is tried
so here. Four things stand for what a reader does by hand between two blocks:

* a route that is defined again has been changed in its file: the older one is gone;
* ``app`` is a new application wherever the one before it was set up already;
* routes that no ``setup`` of the page has mounted are mounted in an application of
  their own, as ``setup(app)`` at the end of the file would;
* names that belong to the reader's application (``find_user``) come from the test.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import inspect
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from aiohttp import web

import aiohttp_sse_routes
from aiohttp_sse_routes import SSE_KEY, setup
from aiohttp_sse_routes.http.routes import DEFAULT_TABLE, SSERouteDef

from .helpers import Served

Serve = Callable[[web.Application], Awaitable[Served]]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>```+|:::+)(?P<info>.*)")
_TOKEN = re.compile(r"(?<=sse1\.r\.)[\w-]{22}|(?<=sse1\.l\.)[0-9a-z]{12}")
_DIRECTIVE = re.compile(r"\{code-block\}\s*(\w+)")


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        language: The first word behind the fence.
        text: What is in it.
        line: The number of its first line in the page.
    """

    language: str
    text: str
    line: int


def all_pages() -> list[Path]:
    """Return every page of the documentation, the README first."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of the page at *path*."""
    lines = iter(enumerate(path.read_text("utf-8").splitlines(), 1))
    for number, line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None:
            continue
        indent, ticks, info = opening["indent"], opening["ticks"], opening["info"]
        directive = _DIRECTIVE.match(info)
        language = directive[1] if directive else info.split(" ")[0]
        body = []
        for _, inner in lines:
            if inner.strip() == ticks:
                break
            body.append(inner.removeprefix(indent))
        yield Block(language, "\n".join(body) + "\n", number + 1)


class Page:
    """A page that is being run.

    Args:
        path: The page's.
        serve: Serves an application on a free port.
        names: What its blocks find there beside the public names of the package.

    Attributes:
        names: The namespace of its blocks.
    """

    def __init__(
        self, path: Path, serve: Serve, names: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.names: dict[str, Any] = {
            "__name__": path.stem,
            "asyncio": asyncio,
            "web": web,
            "app": web.Application(),
        }
        for name in aiohttp_sse_routes.__all__:
            self.names[name] = getattr(aiohttp_sse_routes, name)
        self.names.update(names or {})
        self._serve = serve
        # Each application that was set up, with the default table as it was then.
        self._tables: dict[web.Application, list[SSERouteDef]] = {}
        self._served: dict[web.Application, Served] = {}
        self._ids: dict[str, str] = {}

    async def run(self) -> None:
        """Execute all blocks, and try what the page tries."""
        for block in blocks_of(self.path):
            if block.language == "python":
                await self.execute(block)
            elif block.language == "console":
                for command, expected in _commands(block):
                    await self.try_command(command, expected)
        await self.served()

    async def execute(self, block: Block) -> None:
        """Execute one block of Python."""
        if SSE_KEY in self.names["app"]:
            self.names["app"] = web.Application()
        for code in _compiled(block, self.path):
            result = eval(code, self.names)
            if inspect.iscoroutine(result):
                await result
            self._forget_older_routes()
            self._note(self.names["app"])

    def _note(self, app: web.Application) -> None:
        if app not in self._tables and (SSE_KEY in app or app.router.routes()):
            self._tables[app] = []
        if SSE_KEY in app and not self._tables[app]:
            self._tables[app] = DEFAULT_TABLE[:]

    @property
    def apps(self) -> list[web.Application]:
        """The applications of the page, the newest last."""
        return list(self._tables)

    def plain(self) -> web.Application:
        """Return an application with all routes, as ``setup(app)`` makes it."""
        app = web.Application()
        setup(app)
        self._note(app)
        return app

    async def served(self, app: web.Application | None = None) -> Served:
        """Serve *app*, by default the page's newest with all routes there are."""
        if app is None:
            newest = self.apps[-1:]
            if newest and self._tables[newest[0]] == DEFAULT_TABLE[:]:
                app = newest[0]
            else:
                app = self.plain()
        if app not in self._served:
            now = DEFAULT_TABLE._items
            DEFAULT_TABLE._items = self._tables[app]
            try:
                self._served[app] = await self._serve(app)
            finally:
                DEFAULT_TABLE._items = now
        return self._served[app]

    async def all_served(self) -> list[Served]:
        """Serve every application of the page."""
        return [await self.served(app) for app in self._tables]

    async def try_command(self, command: str, expected: str) -> None:
        """Try a ``curl`` command; other commands are the reader's own."""
        if not command.startswith("curl "):
            return
        served = await self.served()
        for shown, real in self._ids.items():
            command = command.replace(shown, real)
        text = await _curl(command, served, expected.count("\n"))
        for shown, real in zip(
            _TOKEN.findall(expected), _TOKEN.findall(text), strict=False
        ):
            self._ids.setdefault(shown, real)
        assert _stable(text).startswith(_stable(expected)), (command, text)

    def _forget_older_routes(self) -> None:
        newest = {item.path: item for item in DEFAULT_TABLE}
        if len(newest) != len(DEFAULT_TABLE):
            DEFAULT_TABLE._items[:] = newest.values()


def _compiled(block: Block, path: Path) -> Iterator[CodeType]:
    """Yield the statements of *block*, with the page's own line numbers."""
    text = "\n" * (block.line - 1) + block.text
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for node in ast.parse(text, str(path)).body:
        module = ast.Module([node], type_ignores=[])
        yield compile(module, str(path), "exec", flags=flags, dont_inherit=True)


def _commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of a console, with what is shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.replace("\\\n", " ").partition("\n")
        yield command, shown


async def _curl(command: str, served: Served, lines: int) -> str:
    """Do what ``curl`` does, and return what it prints, until so many lines came."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("url")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    given = parser.parse_args(shlex.split(command))
    url = re.sub(r"^http://localhost:8080", served.base, given.url)
    assert url != given.url, f"{command}: not to the application"
    method = given.request or ("POST" if given.data else "GET")
    async with (
        asyncio.timeout(10),
        served.session.request(
            method,
            url,
            data=given.data,
            headers=[tuple(header.split(": ", 1)) for header in given.header],
        ) as response,
    ):
        text = ""
        if given.i:
            text = f"HTTP/1.1 {response.status} {response.reason}\n"
            text += "".join(f"{k}: {v}\n" for k, v in response.headers.items()) + "\n"
        while text.count("\n") < lines:
            data = await response.content.readany()
            if not data:
                break
            text += data.decode()
    return text


def _stable(text: str) -> str:
    """Return *text* without what is different each time."""
    text = _TOKEN.sub("TOKEN", text)
    text = re.sub(r"(?m)^(retry: )\d+$", r"\1N", text)
    return re.sub(r"\b\d{10}\.\d+\b", "TIME", text)
