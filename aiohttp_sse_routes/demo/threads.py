"""Blocking work, a step at a time, for an async iterator.

Law: the loop waits for a step and is never blocked by one. A step that runs when its
iterator is closed runs to its end, and what it works on is closed behind it.
"""

from __future__ import annotations

__all__ = ("in_thread",)

import asyncio
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final[Any] = object()


async def in_thread(
    steps: Generator[T], *, every: float = 0.0, pool: Executor | None = None
) -> AsyncGenerator[T]:
    """Yield what *steps* yields; each step of it is made in a thread.

    Args:
        steps: A generator that blocks: it reads files, hashes, asks the system.
        every: Seconds from one step's begin to the next one's, at least.
        pool: Whose threads; by default the loop's own.
    """
    loop = asyncio.get_running_loop()
    step: asyncio.Future[T] | None = None
    try:
        while True:
            due = loop.time() + every
            step = loop.run_in_executor(pool, next, steps, _END)
            # Shielded, for a thread cannot be cancelled.
            item = await asyncio.shield(step)
            if item is _END:
                return
            yield item
            await asyncio.sleep(due - loop.time())
    finally:
        if step is None or step.done():
            steps.close()
        else:
            step.add_done_callback(lambda _: steps.close())
