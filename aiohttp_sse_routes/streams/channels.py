"""What a channel route's handler returns: which channels its client follows.

Law: a value, checked when it is made; nothing is followed here.
"""

from __future__ import annotations

__all__ = ("Channels",)

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ..callables import function_of
from ..logs.entry import check_channel

_MOST_NAMES = 256


class Channels:
    """What a connection follows.

    Args:
        *names: The channels, at least one; one that is named twice counts once.
        history: How many past events a new client gets: of all names together, the
            newest, in order. As many as the store has kept, at most.
        snapshot: An async generator function without arguments, that yields the present
            state. It is run on a fresh open and after a gap, behind the moment at which
            the client's place was taken: what changes the state while it runs comes
            after it, with nothing between. Its events carry no id. With *history*, the
            past events come behind it.
        on_close: A function without arguments, awaited if need be, that is called when
            the client has left; once, also if it left before the stream began.

    Raises:
        ValueError: there is no name, or one that cannot be a channel's; *history* is
            not an int of at least 0.
        TypeError: an argument is of the wrong kind.
    """

    __slots__ = ("history", "names", "on_close", "snapshot")

    def __init__(
        self,
        *names: str,
        history: int = 0,
        snapshot: Callable[[], AsyncIterator[Any]] | None = None,
        on_close: Callable[[], Awaitable[object] | object] | None = None,
    ) -> None:
        self.names = tuple(dict.fromkeys(check_channel(name) for name in names))
        if not self.names:
            raise ValueError("Channels() needs at least one name: Channels('news')")
        if len(self.names) > _MOST_NAMES:
            raise ValueError(
                f"Channels() takes {_MOST_NAMES} names at most, not {len(self.names)}: "
                "publish to one channel that all follow"
            )
        if isinstance(history, bool) or not isinstance(history, int) or history < 0:
            raise ValueError(
                f"Channels(history={history!r}) must be an int of at least 0"
            )
        if snapshot is not None:
            _check_snapshot(snapshot)
        if on_close is not None and not callable(on_close):
            raise TypeError(
                f"Channels(on_close={on_close!r}) must be a function: give it itself "
                "and not what it returns"
            )
        self.history = history
        self.snapshot = snapshot
        self.on_close = on_close

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.names))
        return f"Channels({names}, history={self.history})"


def _check_snapshot(snapshot: Any) -> None:
    if inspect.isasyncgen(snapshot):
        raise TypeError(
            "Channels(snapshot=...) takes the async generator function itself, for it "
            "may run again after a gap: leave the brackets out, or use a lambda"
        )
    if not callable(snapshot):
        raise TypeError(
            f"Channels(snapshot={snapshot!r}) must be an async generator function"
        )
    function = function_of(snapshot)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            "Channels(snapshot=...) must be an async generator function: write async "
            "def with yield in it"
        )
