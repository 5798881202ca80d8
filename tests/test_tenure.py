"""A process's part in a lease: what is given back is not begun under."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp_sse_routes.logs.entry import Fence, Lease
from aiohttp_sse_routes.logs.memory import MemoryStore
from aiohttp_sse_routes.streams.tenure import Tenure

from .helpers import until


class Slow(MemoryStore):
    """A store that keeps its answers about a lease to itself until it may give them.

    Attributes:
        may: Set while it may.
        asked: How many questions have come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.asked = 0

    async def lease(self, *args: Any, **options: Any) -> Lease:
        """See `Store.lease`."""
        self.asked += 1
        answer = await super().lease(*args, **options)
        await self.may.wait()
        return answer


async def test_no_answer_counts_that_came_while_it_was_to_be_given_back() -> None:
    """Who gives a lease back, and wants it, hears of the next one, not of that."""
    store = Slow()
    await store.open(None, now=time.monotonic)
    store.may.set()
    told: list[Fence | None] = []
    wanted = True
    tenure = Tenure(
        store,
        "x",
        "me",
        needed=lambda: wanted,
        on_answer=lambda: told.append(tenure.fence),
        on_end=lambda: None,
    )
    tenure.ask()
    await until(lambda: told == [Fence("x", 1)])
    store.may.clear()
    tenure.ask()
    await until(lambda: store.asked == 2)
    tenure.give_back()
    store.may.set()
    await until(lambda: len(told) == 2)
    assert [Fence("x", 1), Fence("x", 2)] == told
    wanted = False
    tenure.give_back()
    await until(lambda: tenure.task is None)
    assert [Fence("x", 1), Fence("x", 2)] == told
    await store.close()
