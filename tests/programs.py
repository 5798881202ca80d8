"""Runs what the documentation shows: the programs of ``examples/``, as their users do.

Law: a program is run as ``python program.py`` runs it, up to the point where it would
serve; what it would have served is handed to the test, which serves it on a free port.
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from aiohttp import web

from aiohttp_sse_routes.http.routes import DEFAULT_TABLE

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


class Program(NamedTuple):
    """A program that has come to ``web.run_app``.

    Attributes:
        app: What it would serve.
        options: The other arguments of ``run_app``.
        names: Its global names.
    """

    app: web.Application
    options: dict[str, Any]
    names: dict[str, Any]


def interruptible() -> None:
    """Let this process, which is about to be another program, be ended by Ctrl-C.

    What is started in the background of a shell is not, and its children neither.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_program(path: Path, *arguments: object) -> Program:
    """Run the program at *path* with the command line's *arguments*."""
    with (
        patch.object(web, "run_app") as run_app,
        patch.object(sys, "argv", [str(path), *map(str, arguments)]),
    ):
        names = runpy.run_path(str(path), run_name="__main__")
    run_app.assert_called_once()
    served, options = run_app.call_args
    return Program(served[0], options, dict(names))


@contextmanager
def default_table() -> Iterator[None]:
    """Have an empty default table, as a process that has just begun.

    It has to last until the application has ended: at its start it looks whether the
    table has grown since ``setup``.
    """
    before = DEFAULT_TABLE._items.copy()
    DEFAULT_TABLE._items.clear()
    try:
        yield
    finally:
        DEFAULT_TABLE._items[:] = before
