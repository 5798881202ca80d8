"""The task that iterates a handler's generator.

Law: a generator is started, iterated and closed in one task of its own. It is told to
stop, never awaited with a time limit, and ``__anext__`` is never timed out. While it
is parked at a ``yield`` and this task waits for room, a cancellation of the task is
thrown into the generator (PEP 789), so that task groups and timeouts inside it work.
"""

from __future__ import annotations

__all__ = ("Producer", "Reconnect")

import asyncio
import contextvars
import types
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Final

from ..errors import EventError
from .ending import Ending
from .steps import steps_of, thrown_into

_FIRST_LOOK: Final = 0.001
_LAST_LOOK: Final = 0.1
"""Seconds between looks at whether the peer has acknowledged: no system call says so
by itself. They double, so that a client that stalls costs ten looks a second."""


class Reconnect(Exception):
    """Raised in a handler's generator: end the stream now, the client comes back later.

    Args:
        after: Seconds until the client comes back, at least 0.5.
    """

    def __init__(self, after: float = 5.0) -> None:
        if isinstance(after, bool) or not isinstance(after, (int, float)):
            raise TypeError(f"Reconnect(after={after!r}): give seconds as a number")
        if not 0 <= after < 2**31:
            raise ValueError(f"Reconnect(after={after!r}): give seconds, at least 0")
        super().__init__(after)
        self.after = after


class Producer:
    """Iterates *iterator* in a task and hands each item to *emit*.

    Args:
        iterator: What the handler returned.
        emit: Takes an item; returns whether the generator is to rest before the next:
            the loop must get a turn, or there is no room. What it raises ends the
            generator as failed.
        has_room: Says whether the next item may be asked for.
        can_wait: Says whether room may come by itself, and is worth a look.
        on_end: Told, once, how it ended.
        name: The handler's, for the task and the log.
        emit_more: Takes an item of which the generator has not waited since the one
            before; as *emit* where it is left out.
        at_wait: Called when the generator waits for something, or is to rest, and
            *emit_more* has had an item since.
        context: The context variables it runs in; None for a copy of the present.

    Attributes:
        on_done: Told of it when its task is done.
        opened: Done when the first item has been handed over, or with the ending; None
            from then on, for nobody waits any more.
        ending: How it ended; None while it runs.
        yielded: Whether it has yielded anything, if only what cannot be sent.
    """

    __slots__ = (
        "__weakref__",
        "_at_wait",
        "_can_wait",
        "_closing",
        "_emit",
        "_emit_more",
        "_has_room",
        "_iterator",
        "_on_end",
        "_steps",
        "_stopping",
        "_waiter",
        "ending",
        "name",
        "on_done",
        "opened",
        "task",
        "yielded",
    )

    def __init__(
        self,
        iterator: AsyncIterator[Any],
        *,
        emit: Callable[[Any], bool],
        has_room: Callable[[], bool],
        can_wait: Callable[[], bool],
        on_end: Callable[[Ending], None],
        name: str,
        emit_more: Callable[[Any], bool] | None = None,
        at_wait: Callable[[], None] = lambda: None,
        context: contextvars.Context | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.ending: Ending | None = None
        self.on_done: Callable[[Producer], object] | None = None
        self.opened: asyncio.Future[None] | None = loop.create_future()
        self.yielded = False
        self._iterator = iterator
        self._steps = steps_of(iterator)
        self._emit = emit
        self._emit_more = emit_more or emit
        self._has_room = has_room
        self._can_wait = can_wait
        self._on_end = on_end
        self._at_wait = at_wait
        self._stopping = False
        self._closing = False
        self._waiter: asyncio.Future[None] | None = None
        self.task = loop.create_task(
            self._run(), name=f"sse-run {name}", context=context
        )
        self.task.add_done_callback(self._done)

    @property
    def iterator(self) -> AsyncIterator[Any]:
        """What the handler returned."""
        return self._iterator

    @property
    def is_paused(self) -> bool:
        """Whether the generator is parked at a ``yield``, for want of room."""
        return self._waiter is not None

    @property
    def _is_inside(self) -> bool:
        """Whether the generator runs, or waits: it is not parked at a ``yield``."""
        return not self._closing and bool(self._steps.ag_running)

    def stop(self) -> None:
        """Tell the generator to end; it is told once and takes what time it takes.

        In an ``await`` of its own it gets ``CancelledError`` there, parked at a
        ``yield`` it gets ``GeneratorExit``, so that its ``finally`` runs at once.
        """
        if self._stopping or self.task.done():
            return
        self._stopping = True
        if self._is_inside:
            self.task.cancel()
            # It is delivered by then. Left to count, it would be delivered once more,
            # by a task group in the generator's finally (since Python 3.13).
            self.task.get_loop().call_soon(self.task.uncancel)
        else:
            self.wake()

    def wake(self) -> None:
        """Look again whether there is room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _run(self) -> None:
        ending = Ending("stopped")
        try:
            try:
                ending = await self._iterate()
            finally:
                self._closing = True
                self._at_wait()
                await self._close()
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            assert task is not None
            if self._stopping:
                task.uncancel()
            elif task.cancelling():
                # Somebody else's: the loop is shutting down.
                ending = Ending("stopped", exc)
                raise
            else:
                # The generator awaited what another had cancelled.
                ending = Ending("failed", exc)
        except BaseException as exc:
            ending = self._classify(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self.ending = ending

    @types.coroutine
    def _iterate(self) -> Generator[Any, Any, Ending]:
        # Called as attributes, they would be looked up each time.
        emit, emit_more, at_wait = self._emit, self._emit_more, self._at_wait
        advance = self._steps.asend
        is_first, holds = True, False  # of what came since the generator waited
        thrown: asyncio.CancelledError | None = None
        while not self._stopping:
            try:
                if thrown is None:
                    # An ``await`` by hand, which shows whether the generator waits. A
                    # callback that tells when a turn of the loop is over would cost a
                    # turn for each event. And a call at each wait is saved: mostly
                    # nothing waits for that.
                    step = advance(None)
                    try:
                        waits_for = step.send(None)
                    except StopIteration as stop:
                        item = stop.value
                    else:
                        is_first = True
                        if holds:
                            holds = False
                            at_wait()
                        try:
                            yield waits_for
                        except GeneratorExit:
                            raise
                        except BaseException as exc:  # noqa: BLE001 -- for it
                            item = yield from thrown_into(step, exc)
                        else:
                            item = yield from step
                else:
                    raised, thrown = thrown, None
                    item = yield from self._steps.athrow(raised)
            except StopAsyncIteration:
                return Ending("stopped" if self._stopping else "finished")
            if self._stopping:
                break
            try:
                if is_first:
                    is_first = False
                    rest_due = emit(item)
                else:
                    holds = True
                    rest_due = emit_more(item)
            except EventError as exc:
                exc.add_note(f"yielded by {self.name}{_line_of(self._iterator)}")
                raise
            finally:
                if not self.yielded:
                    self.yielded = True
                    self._open()
            if rest_due:
                is_first = True
                if holds:
                    holds = False
                    at_wait()
                try:
                    yield from asyncio.sleep(0)
                    yield from self._wait_for_room()
                except asyncio.CancelledError as exc:
                    if self._stopping:
                        raise
                    thrown = exc
        return Ending("stopped")

    def _open(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None and not opened.done():
            opened.set_result(None)

    async def _wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_LOOK
        while not self._stopping and not self._has_room():
            self._waiter = loop.create_future()
            look = None
            if self._can_wait():
                look = loop.call_later(delay, self.wake)
                delay = min(_LAST_LOOK, delay * 2)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if look is not None:
                    look.cancel()

    async def _close(self) -> None:
        """Run the generator's ``finally``, in this task."""
        close = getattr(self._iterator, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except BaseExceptionGroup as group:
            # A task group that is left by GeneratorExit wraps it (until Python 3.13).
            rest = group.split((GeneratorExit, asyncio.CancelledError))[1]
            if rest is not None:
                raise rest from None

    def _classify(self, exc: BaseException) -> Ending:
        if isinstance(exc, Reconnect):
            return Ending("reconnect", after=exc.after)
        if (
            self._stopping
            and isinstance(exc, BaseExceptionGroup)
            and exc.split((GeneratorExit, asyncio.CancelledError))[1] is None
        ):
            return Ending("stopped")
        return Ending("failed", exc)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen: it is in the ending
        # A task that is cancelled before its first step has run nothing at all.
        ending = self.ending = self.ending or Ending("stopped")
        self._on_end(ending)
        self._open()
        if self.on_done is not None:
            self.on_done(self)


def _line_of(iterator: object) -> str:
    frame = getattr(iterator, "ag_frame", None)
    if frame is None:
        return ""
    return f", {frame.f_code.co_filename}:{frame.f_lineno}"
