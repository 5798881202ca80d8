"""The thread of a process that answers what an SQLite log is asked.

Law: it only reads, one question after the other, each at one moment of the log.
"""

from __future__ import annotations

__all__ = ("Reader",)

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from ...errors import StoreUnavailable
from .file import Trouble, connect, explain, identity
from .session import Epoch, Session
from .writer import Writer

T = TypeVar("T")

_LOCKED: Final = 1.0


class Reader:
    """Answers.

    Args:
        path: Where the file is.
        session: Which file it is.
        writer: Who knows why there is none, and is told if it is another by now.
    """

    def __init__(self, path: str, session: Session, writer: Writer) -> None:
        self._path = path
        self._session = session
        self._writer = writer
        self._db: sqlite3.Connection | None = None
        self._epoch: Epoch | None = None
        self._pool = ThreadPoolExecutor(1, "sse-sqlite-reader")

    async def ask(
        self, generation: str | None, question: Callable[..., T], *arguments: Any
    ) -> T:
        """Return what *question* answers, called with a connection and *arguments*.

        Args:
            generation: The one whose numbers are meant.
            question: One of `read`.
            *arguments: Its own.

        Raises:
            StoreUnavailable: the file cannot be read now.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, self._answer, generation, question, *arguments
        )

    async def close(self, *before: Callable[[], Any]) -> None:
        """End, when all is answered and *before* was called in the thread."""
        loop = asyncio.get_running_loop()
        steps = [loop.run_in_executor(self._pool, do) for do in (self._let_go, *before)]
        self._pool.shutdown(wait=False)
        await asyncio.gather(*steps)

    def _answer(
        self, generation: str | None, question: Callable[..., T], *arguments: Any
    ) -> T:
        try:
            return question(self._connected(generation), *arguments)
        except Exception as error:
            self._let_go()
            trouble = explain(self._path, error)
            if trouble is None:
                raise
            raise StoreUnavailable(trouble.text) from error

    def _connected(self, generation: str | None) -> sqlite3.Connection:
        epoch = self._session.epoch
        if epoch is None or identity(self._path) != epoch.identity:
            self._writer.tell("look")
            raise self._writer.trouble or Trouble(
                f"{self._path} is not open at the moment: try again", passing=True
            )
        if epoch.generation != generation:
            raise Trouble(
                f"{self._path} is another log by now: ask again", passing=True
            )
        if self._db is None or epoch is not self._epoch:
            self._let_go()
            self._db = connect(self._path, timeout=_LOCKED)
            self._epoch = epoch
        return self._db

    def _let_go(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None
