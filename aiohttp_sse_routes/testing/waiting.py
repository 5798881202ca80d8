"""Waits for what a test cannot await: a condition.

Law: the time limit is a guard against waiting for ever, and never a wait.
"""

from __future__ import annotations

__all__ = ("until",)

import asyncio
from collections.abc import Callable
from typing import Final

_SPINS: Final = 1000
"""Turns of the loop without a pause: most of what is waited for is due at once."""

_PAUSE: Final = 0.001


async def until(
    condition: Callable[[], object], *, timeout: float = 5.0, what: str = ""
) -> None:
    """Turn the loop until *condition* holds.

    Args:
        condition: Returns something true when it does.
        timeout: Seconds after which it is given up.
        what: The condition in words, for the error.

    Raises:
        AssertionError: it does not hold in time.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + timeout
    spins = 0
    while not condition():
        if loop.time() > limit:
            raise AssertionError(
                f"it never came about within {timeout:g} s: {what or _place(condition)}"
            )
        spins += 1
        await asyncio.sleep(0 if spins < _SPINS else _PAUSE)


def _place(condition: Callable[[], object]) -> str:
    code = getattr(condition, "__code__", None)
    if code is None:
        return repr(condition)
    return f"{code.co_qualname} at {code.co_filename}:{code.co_firstlineno}"
