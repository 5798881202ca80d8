"""One generator's work under one lease.

Law: the generator rests while the store takes nothing, and what it has yielded is
appended in order or not at all. Until its first yield nobody but its own process need
know of it, so that what it raises by then can still be a status.
"""

from __future__ import annotations

__all__ = ("Names", "Plan", "Stint")

import contextvars
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from ..errors import EventError
from ..logs.entry import Bounds, Draft, Fence
from ..logs.store import Store
from ..wire import Body, control
from .course import Kind, Mark
from .ending import Ending
from .feed import BURST
from .pipe import Pipe
from .producer import Producer

_MARKS: Final = Bounds(max_events=64)


class Names(NamedTuple):
    """What a run has in the store.

    Attributes:
        lease: Its lease.
        events: The channel of its events.
        marks: The channel of its marks.
    """

    lease: str
    events: str
    marks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a shared run is, in any of the processes that may run it.

    Attributes:
        name: The handler's.
        begin: Calls the handler.
        encode: Makes the body of what is yielded.
        bounds: What its log holds.
        history: How many past events a new client gets.
        resume: Seconds that it goes on without a client.
        control_events: Whether its clients get any.
        refuses: Says whether a failure means that coming back would not help.
        on_start: Told of each producer that is started.
        on_failure: Told of a failure, and in how many seconds it begins again.
    """

    name: str
    begin: Callable[[], AsyncIterator[Any]]
    encode: Callable[[Any], Body]
    bounds: Bounds
    history: int
    resume: float
    control_events: bool
    refuses: Callable[[Ending], bool]
    on_start: Callable[[Producer], None]
    on_failure: Callable[[Ending, float | None], None]


class Stint:
    """A generator, and its way into the store.

    Args:
        plan: The run's.
        names: What it has in the store.
        store: The store.
        fence: The lease's proof.
        on_end: Told, once, how the generator ended.
        on_lost: Told when the store says that the lease is lost.

    Attributes:
        announced: Whether the log is told, or will be, that it has begun.
        began: The number of that mark; None until it has come back from the store.
        silent: Whether it has yielded no event yet.
        lost: Whether its lease is lost.
        parting: What the log is told when it was stopped.
    """

    def __init__(
        self,
        plan: Plan,
        names: Names,
        store: Store,
        fence: Fence,
        *,
        on_end: Callable[[Stint, Ending], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.fence = fence
        self.announced = False
        self.began: int | None = None
        self.silent = True
        self.lost = False
        self.parting: Kind = "broken"
        self._stopping = False
        self._plan = plan
        self._names = names
        self._head = b""
        self._count = 0
        self._pipe = Pipe(
            store,
            fence,
            name=plan.name,
            on_room=self._go_on,
            on_lost=on_lost,
        )
        self.producer = Producer(
            plan.begin(),
            emit=self._emit,
            has_room=lambda: self._pipe.has_room,
            can_wait=_never,
            on_end=lambda ending: on_end(self, ending),
            name=plan.name,
            context=contextvars.Context(),
        )
        plan.on_start(self.producer)

    def announce(self) -> None:
        """Let the log, and so all workers, know that it has begun."""
        if not self.announced:
            self.announced = True
            self.mark(Mark("began"))

    def mark(self, mark: Mark) -> None:
        """Append *mark*, behind all that was yielded."""
        self._pipe.put(self._names.marks, mark.draft, _MARKS)

    async def emptied(self) -> None:
        """Return when all is appended, or nothing more will be."""
        await self._pipe.emptied()

    def stop(self, parting: Kind) -> None:
        """Tell the generator to end, and the log *parting*; the first one counts."""
        if self.producer.ending is None:
            self.parting = parting
        self._stopping = True
        self.producer.stop()

    @property
    def leaving(self) -> bool:
        """Whether it is to end, or has ended."""
        return self._stopping or self.producer.ending is not None

    def lose(self) -> None:
        """End it, and append nothing more: the lease is another's."""
        self.lost = self._stopping = True
        self._pipe.close()
        self.producer.stop()

    def _go_on(self) -> None:
        self.producer.wake()

    def _emit(self, item: Any) -> bool:
        self.announce()
        if item is None:
            return True
        body = self._plan.encode(item)
        if body.id is not None:
            raise EventError(
                f"{self._plan.name} is shared: events of a shared run get their ids "
                f"here, leave out id={body.id!r}"
            )
        lines = self._head + body.lines
        self._head = b""
        if not body.carries_id:
            # The store gives every entry an id, and no id goes without data.
            if not self._plan.control_events:
                self._head = lines[:-1]
                return True
            lines = lines[:-1] + control("sse-cursor", {})
        self.silent = self.silent and not body.carries_id
        self._pipe.put(self._names.events, Draft(lines), self._plan.bounds)
        self._count += 1
        return not self._pipe.has_room or self._count % BURST == 0


def _never() -> Literal[False]:
    return False
