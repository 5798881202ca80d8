"""What a stream is about, and who is told when that changes.

Law: whoever waits for a change is woken, and looks for himself what it is.
"""

from __future__ import annotations

__all__ = ("Status",)

import asyncio
import logging
from collections.abc import Callable

from .event import State, StateInfo

_logger = logging.getLogger("aiohttp_sse_routes")


class Status:
    """The present state of a stream.

    Args:
        told: Called with each `StateInfo`; what it raises is logged.

    Attributes:
        info: What it is about.
    """

    def __init__(self, told: Callable[[StateInfo], object] | None) -> None:
        self.info = StateInfo("connecting")
        self._told = told
        self._changed: asyncio.Future[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self.info.state == "closed"

    def become(
        self,
        state: State,
        attempt: int,
        *,
        delay: float | None = None,
        reason: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Have another state."""
        self.info = StateInfo(state, attempt, delay, reason, error)
        self.wake()
        if self._told is not None:
            try:
                self._told(self.info)
            except Exception:
                _logger.exception("on_state= raised, and the stream goes on")

    async def change(self) -> None:
        """Wait until `wake` is called."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        # Not the future itself: who is cancelled would cancel it for all.
        await asyncio.wait({self._changed})

    def wake(self) -> None:
        """Let all go on that wait for a change."""
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None
