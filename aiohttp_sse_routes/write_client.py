"""``python -m aiohttp_sse_routes client``: the client's files, for who bundles them.

Law: what is written is what the application would serve, byte for byte, but for a word
to bundlers, that they leave the import of the hub alone. The application is imported
and not started. ``--check`` writes nothing.
"""

from __future__ import annotations

__all__ = ("write_client",)

import asyncio
import difflib
import inspect
import itertools
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from .errors import SSERoutesError
from .http.mounted import find_routes
from .http.pages import PAGES_KEY

# What is imported is known when it is: a bundler could not follow, and would break it.
_IMPORT: Final = "import("
_LEFT_ALONE: Final = f"{_IMPORT}/* webpackIgnore: true */ /* @vite-ignore */ "

_DIFFERENT: Final = 1
_USAGE: Final = 2
# Of a file that is minified a few lines, and of these the beginning, say enough.
_LINES: Final = 40
_WIDTH: Final = 200


class _WrongUse(Exception):
    """The command line, or what it names, is wrong."""


def write_client(name: str, folder: Path, *, check: bool = False) -> int:
    """Write the client of an application; return the exit status.

    Args:
        name: The application, as ``module:app``: a name in a module, of an application
            or of a function that returns one, awaited if need be.
        folder: Where to; it is made if it is not there.
        check: Whether to compare what is there and write nothing. The status is 1 if
            that differs from what the application would serve.
    """
    try:
        files = _files_of(name)
    except (_WrongUse, SSERoutesError) as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return _USAGE
    if check:
        return _compare(files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in _paths(files, folder):
        # What has not changed keeps its time, by which bundlers watch.
        if _text_of(path) != text:
            path.write_text(text, "utf-8", newline="\n")
            print(f"wrote {path}")
    return 0


def _compare(files: dict[str, str], folder: Path) -> int:
    status = 0
    for path, text in _paths(files, folder):
        there = _text_of(path)
        if there == text:
            continue
        status = _DIFFERENT
        if there is None:
            print(f"{path} is missing")
        else:
            print(*_difference(path, there, text), sep="\n")
    if status:
        print("The files are not those of the application: write them anew.")
    return status


def _difference(path: Path, there: str, text: str) -> Iterator[str]:
    lines = difflib.unified_diff(
        there.splitlines(),
        text.splitlines(),
        fromfile=str(path),
        tofile="the application's",
        lineterm="",
        n=1,
    )
    for line in itertools.islice(lines, _LINES):
        yield line if len(line) <= _WIDTH else line[:_WIDTH] + "…"


def _paths(files: dict[str, str], folder: Path) -> Iterator[tuple[Path, str]]:
    for name, text in files.items():
        yield folder / name, text


def _text_of(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


def _files_of(name: str) -> dict[str, str]:
    app = _application(name)
    pages = app.get(PAGES_KEY)
    if pages is None:
        raise _WrongUse("setup(app) was not called on this application")
    pages.open(find_routes(app))
    return {
        path: text.replace(_IMPORT, _LEFT_ALONE) for path, text in pages.files().items()
    }


def _application(name: str) -> web.Application:
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise _WrongUse("name the application as module:app")
    try:
        found: Any = pkgutil.resolve_name(f"{module_name}:")
    except ModuleNotFoundError as exc:
        # Not if it is the module itself that misses one.
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise _WrongUse(f"there is no module {exc.name!r} here") from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise _WrongUse(f"there is no {part!r} in {module_name}")
        found = getattr(found, part)
    if not isinstance(found, web.Application) and callable(found):
        found = _made(found)
    if not isinstance(found, web.Application):
        raise _WrongUse(f"this is {type(found).__name__}, and no application")
    return found


def _made(factory: Any) -> Any:
    async def make() -> Any:
        # A function for `python -m aiohttp.web` takes the command line's arguments.
        try:
            inspect.signature(factory).bind()
        except TypeError:
            made = factory([])
        else:
            made = factory()
        return await made if inspect.isawaitable(made) else made

    return asyncio.run(make())
