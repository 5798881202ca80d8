"""A worker's part in having the generator of a shared run.

Law: it has a lease while its generator runs, and nothing is appended but under that.
One generator at a time, here and over all workers; it ends when nobody wants it
anywhere, and who has lost the lease ends it at once.
"""

from __future__ import annotations

__all__ = ("Opening", "Runner")

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable
from typing import Final

from ..errors import StoreUnavailable
from ..logs.store import Store
from .course import OVER, Course, Mark
from .ending import Ending
from .shared import Backoff
from .stint import Names, Plan, Stint
from .tenure import ASK, Tenure

_logger = logging.getLogger("aiohttp_sse_routes")

_SOON: Final = 0.1
"""Seconds from the mark of a break until the lease is asked for: whoever has made the
mark gives the lease back behind it."""


class Opening:
    """What those wait for who come before a run has begun.

    Attributes:
        opened: Done when they need not wait any more.
        failure: What the generator has failed with before its first yield.
    """

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: Ending | None = None

    def done(self, failure: Ending | None = None) -> None:
        """Let them go on."""
        if not self.opened.done():
            self.failure = failure
            self.opened.set_result(None)


class Runner:
    """The lease of a run, and its generator while it is held.

    Args:
        plan: What the run is.
        names: What it has in the store.
        store: The store.
        holder: Who this process is, to the store.
        now: The application's clock.
        later: Calls something with the time, in some seconds.
        course: Returns what the log tells of the run.
        followed: Says whether anybody follows it here.
        on_idle: Told when there is nothing to do here any more.

    Attributes:
        opening: What those wait for who come now.
    """

    def __init__(
        self,
        plan: Plan,
        names: Names,
        *,
        store: Store,
        holder: str,
        now: Callable[[], float],
        later: Callable[[float, Callable[[float], None]], None],
        course: Callable[[], Course],
        followed: Callable[[], bool],
        on_idle: Callable[[], None],
    ) -> None:
        self.opening = Opening()
        self._plan = plan
        self._names = names
        self._store = store
        self._now = now
        self._later = later
        self._course = course
        self._followed = followed
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._waiting: set[object] = set()
        self._stint: Stint | None = None
        self._wrapping: set[asyncio.Task[None]] = set()
        self._silent = False  # no event has come in any turn of the run
        self._backoff = Backoff()
        self._restart_at: float | None = None
        self._idle_since = math.inf
        self._draining = False
        self._parted: Stint | None = None
        self._tenure = Tenure(
            store,
            names.lease,
            holder,
            needed=lambda: self._wanted and not self._draining,
            on_answer=self._answered,
            on_end=on_idle,
        )

    # -- who wants it ------------------------------------------------------------------

    async def want(self, who: object) -> Opening:
        """Have the run go on for *who*, here or on another worker; begin it if need be.

        Returns:
            What *who* may have to wait for.

        Raises:
            StoreUnavailable: whether it goes on cannot be known now.
        """
        self._waiting.add(who)
        opening = self.opening
        self._idle_since = math.inf
        if self._tenure.task is None or not self.under_way:
            # Whoever has had it may have given it back since.
            self._tenure.ask()
        await asyncio.shield(self._tenure.answered)
        if self._tenure.away and not self.under_way:
            raise StoreUnavailable("the store does not answer: try again later")
        return opening

    def joined(self, who: object) -> None:
        """Note that *who* follows now: what is raised from now on is no status."""
        self._waiting.discard(who)
        if self._stint is not None and not self._stint.lost:
            self._stint.announce()

    def let_go(self, who: object) -> None:
        """Note that *who* does not wait any more, or does not follow."""
        self._waiting.discard(who)
        self._look()

    @property
    def _wanted(self) -> bool:
        return bool(self._waiting) or self._followed()

    def _look(self) -> None:
        """Note since when nobody here wants it."""
        if not self._wanted and self._idle_since == math.inf:
            self._idle_since = self._now()
            self.tick(self._idle_since)
            self._tenure.wake()

    @property
    def going(self) -> bool:
        """Whether a generator goes on, as the log says."""
        if self._stint is not None:
            return self._stint.began is not None and not self._stint.leaving
        # If nobody has the lease, or this worker has, then who has begun it has died.
        return self._tenure.rival and self._course().state == "began"

    @property
    def under_way(self) -> bool:
        """Whether who comes now follows at once, and waits for nothing."""
        broken = self._tenure.rival and self._course().state == "broken"
        return self.going or broken or self._restart_at is not None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do here."""
        return self._stint is None and self._tenure.task is None

    def told(self, mark: Mark) -> None:
        """Learn what the log tells."""
        if mark.kind == "began":
            if self._stint is not None and not self._stint.lost:
                self._stint.began = mark.seq
            opening, self.opening = self.opening, Opening()
            opening.done()
        elif mark.kind in OVER:
            self._look()
        else:
            self._loop.call_later(_SOON, self._ask_again)

    def _ask_again(self) -> None:
        if self._wanted and not self._draining:
            self._tenure.ask()

    # -- the lease ---------------------------------------------------------------------

    def _answered(self) -> None:
        stint, fence = self._stint, self._tenure.fence
        if stint is not None and (stint.fence != fence or self._beginning_lost(stint)):
            self._lose(stint)
        elif fence is None:
            self._restart_at = None
        elif self._draining:
            if stint is None:
                self._tenure.give_back()
        elif self._over():
            self._stop()
        elif stint is None and self._restart_at is None:
            if self._wanted:
                self._start()
            else:
                self._tenure.give_back()

    def _beginning_lost(self, stint: Stint) -> bool:
        return stint.began is not None and not self._course().holds(stint.began)

    def _lose(self, stint: Stint) -> None:
        if not stint.lost:
            _logger.warning(
                "%s: its lease is lost, it goes on in another worker", self._plan.name
            )
            stint.lose()

    def _over(self) -> bool:
        """Return whether nobody has wanted it for long, on any worker."""
        resume = self._plan.resume
        return (
            not self._wanted
            and self._now() - self._idle_since >= resume
            and self._tenure.unwanted >= max(resume, 2 * ASK)
        )

    def _stop(self) -> None:
        if self._stint is not None:
            self._stint.stop("stopped")
        else:
            self._restart_at = None
            self._tenure.give_back()

    def tick(self, now: float) -> None:
        """Begin again, or end, if it is due."""
        if self._tenure.fence is None or self._draining:
            return
        if self._restart_at is not None and now >= self._restart_at:
            if self._stint is None:
                self._restart_at = None
                self._start()
        elif not self._wanted and now - self._idle_since >= self._plan.resume:
            # Whether nobody else wants it, the answer says.
            self._tenure.ask()

    # -- the generator -----------------------------------------------------------------

    def _start(self) -> None:
        fence = self._tenure.fence
        assert fence is not None
        state = self._course().state
        anew = state is None or state in OVER or state == "stopped"
        self._silent = anew or (self._silent and state == "broken")
        self._backoff.began(self._now())
        self._stint = Stint(
            self._plan,
            self._names,
            self._store,
            fence,
            on_end=self._ended,
            on_lost=self._tenure.ask,
        )
        if self._followed():
            self._stint.announce()

    def _ended(self, stint: Stint, ending: Ending) -> None:
        if stint is self._parted:
            return
        self._silent = self._silent and stint.silent
        mark: Mark | None = None
        if stint.lost:
            if ending.kind == "failed":
                self._plan.on_failure(ending, None)
        elif ending.kind == "failed" and not self._draining:
            mark = self._failed(stint, ending)
        elif ending.kind == "finished":
            mark = Mark("finished")
        elif ending.kind == "reconnect":
            mark = Mark("reconnect", ending.after)
        elif stint.announced:
            mark = Mark(stint.parting)
        task = self._loop.create_task(
            self._wrap_up(stint, mark),
            name=f"sse-wrap-up {self._plan.name}",
            context=contextvars.Context(),
        )
        self._wrapping.add(task)
        task.add_done_callback(self._wrapping.discard)

    def _failed(self, stint: Stint, ending: Ending) -> Mark | None:
        """Return what the log is told of a failure."""
        plan = self._plan
        if not stint.producer.yielded and not stint.announced:
            # Those who wait for it get what it raised as their status.
            if not self._waiting:
                plan.on_failure(ending, None)
            self._waiting.clear()
            self._look()
            opening, self.opening = self.opening, Opening()
            opening.done(ending)
            return None
        if plan.refuses(ending) and self._silent:
            plan.on_failure(ending, None)
            return Mark("refused", ref=ending.ref)
        now = self._now()
        delay = self._backoff.delay(now)
        self._restart_at = now + delay
        plan.on_failure(ending, delay)
        self._later(delay, self.tick)
        return Mark("broken")

    async def _wrap_up(self, stint: Stint, mark: Mark | None) -> None:
        """See the last of what was yielded into the log, and *mark* behind that."""
        if mark is not None:
            stint.mark(mark)
        await stint.emptied()
        self._stint = None
        if stint.lost:
            self._restart_at = None
            if self._wanted or self._tenure.fence is not None:
                # Where nobody wants it here, a new lease is for another.
                self._tenure.ask()
        elif self._restart_at is None:
            self._tenure.give_back()
        else:
            self.tick(self._now())
        self._on_idle()

    # -- the end of the application ----------------------------------------------------

    def drain(self) -> None:
        """Let another worker have it."""
        self._draining = True
        self.opening.done()
        if self._stint is None:
            self._restart_at = None
            self._tenure.give_back()

    def part(self) -> None:
        """Give the lease back, though the generator's ``finally`` may go on."""
        stint = self._stint
        if stint is not None and stint.producer.ending is None:
            self._ended(stint, Ending("stopped"))
            self._parted = stint

    async def closed(self) -> None:
        """Return when the lease is given back."""
        while tasks := self._tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """End what is under way."""
        if self._stint is not None:
            self._stint.lose()
            await self._stint.emptied()
        for task in self._tasks:
            task.cancel()
        await self.closed()

    @property
    def _tasks(self) -> set[asyncio.Task[None]]:
        asking = self._tenure.task
        return self._wrapping | ({asking} if asking is not None else set())
