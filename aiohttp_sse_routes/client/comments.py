"""The comments of a stream, for those who want to see its signs of life.

Law: who does not look at them pays for none; who does and is slow loses the oldest,
never memory.
"""

from __future__ import annotations

__all__ = ("Comments",)

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Self

_MANY: Final = 1000
_LONG: Final = 1 << 20


class Comments:
    """An async iterator over comments: what `Stream.comments` returns.

    Args:
        bring: Brings more of the stream; `StopAsyncIteration` is its end.
    """

    def __init__(self, bring: Callable[[], Awaitable[None]]) -> None:
        self._bring = bring
        self._texts: deque[str] = deque()
        self._size = 0

    def add(self, text: str) -> None:
        """Keep *text*, in the place of the oldest where there are too many."""
        texts = self._texts
        texts.append(text)
        self._size += len(text)
        while len(texts) > _MANY or (self._size > _LONG and len(texts) > 1):
            self._size -= len(texts.popleft())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._texts:
            await self._bring()
        text = self._texts.popleft()
        self._size -= len(text)
        return text
