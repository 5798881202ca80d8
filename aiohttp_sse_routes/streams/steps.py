"""The steps of an async iterator, each awaited by hand.

Law: whoever awaits by hand sees what a step waits for, and hands on what is thrown at
that, as ``await`` would.
"""

from __future__ import annotations

__all__ = ("Steps", "steps_of", "thrown_into")

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any


class Steps:
    """An async iterator that is no generator, by the names of one.

    Args:
        iterator: The iterator.

    Attributes:
        ag_running: Whether a step was begun that is not done.
    """

    __slots__ = ("_iterator", "ag_running")

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self._iterator = iterator
        self.ag_running = False

    def asend(self, value: None) -> Generator[Any, Any, Any]:
        """Return the next step, to be awaited by hand."""
        return self._whole(self._iterator.__anext__).__await__()

    def athrow(self, exc: BaseException) -> Generator[Any, Any, Any]:
        """Return the step that *exc* leads to, to be awaited by hand."""
        throw = getattr(self._iterator, "athrow", None)
        if throw is None:
            raise exc
        return self._whole(throw, exc).__await__()

    async def _whole(self, begin: Callable[..., Awaitable[Any]], *words: Any) -> Any:
        self.ag_running = True
        try:
            return await begin(*words)
        finally:
            self.ag_running = False


def steps_of(iterator: AsyncIterator[Any]) -> Any:
    """Return what steps through *iterator*; each step is to be awaited by hand."""
    # A generator's steps are iterators themselves. An ``asend(None)`` is ``__anext__``,
    # without the layer that a special method is called through.
    is_generator = isinstance(iterator, types.AsyncGeneratorType)
    return iterator if is_generator else Steps(iterator)


def thrown_into(
    step: Generator[Any, Any, Any], exc: BaseException
) -> Generator[Any, Any, Any]:
    """Go on with *step*, which waits, behind *exc* that was thrown at that."""
    while True:
        try:
            waits_for = step.throw(exc)
        except StopIteration as stop:
            return stop.value
        try:
            yield waits_for
        except GeneratorExit:
            raise
        except BaseException as another:  # noqa: BLE001 -- for the generator
            exc = another
        else:
            return (yield from step)
