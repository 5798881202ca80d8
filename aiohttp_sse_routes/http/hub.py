"""What one application has while it runs: its runs, its connections, its limits.

Law: created with the application's start and gone with its end, so that an application
can be started twice, and two in one process know nothing of each other. Nothing here
knows of routes beyond what they registered.
"""

from __future__ import annotations

__all__ = ("HUB_KEY", "Hub", "HubSettings", "hub_of")

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from ..errors import NotSetUp, StoreError, StoreUnavailable
from ..logs.memory import MemoryLog, MemoryStore
from ..logs.store import Store
from ..serialize import Dumps
from ..settings import RouteSettings
from ..streams.broker import Broker
from ..streams.clock import Clock, MonotonicClock, Ticker
from ..streams.leased import LeasedRuns
from ..streams.private import PrivateRuns
from ..streams.producer import Producer
from ..streams.publishing import Outlet
from ..streams.shared import SharedRuns
from ..streams.turns import Turns
from ..wire import Encoder
from .connection import Connection
from .dismissal import CHANNEL, Dismissal, Dismissals
from .limits import Limits
from .recheck import Rechecks
from .rounds import Rounds
from .script import RouteScript
from .tally import Tally

_logger = logging.getLogger("aiohttp_sse_routes")

_FLUSH: Final = 0.01
"""Seconds between looks at whether those who leave have taken the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """What ``setup`` was told for the whole application; see there."""

    prefix: str = "/_sse"
    public_prefix: str = ""
    dumps: Dumps | None = None
    max_event_bytes: int = 1_048_576
    max_connections: int | None = None
    max_connections_per_client: int | None = None
    client_key: Callable[[Any], Any] | None = None
    max_detached: int = 1000
    allow_origins: tuple[str, ...] = ()
    shutdown_grace: float = 0.5
    store: Store = field(default_factory=MemoryStore)
    clock: Clock = field(default_factory=MonotonicClock)
    defaults: Mapping[str, Any] = field(default_factory=dict)


class Hub:
    """The running state of one application.

    Attributes:
        settings: The application's.
        limits: How many connections there are, and may be.
        rounds: Who looks after them.
        scripts: What is said on each route.
        encoders: What makes the bodies of what is yielded, by route.
        tallies: What is counted, by the routes' names.
        draining: Whether the application is shutting down.
        deadline: When its grace is over, by the loop's time.
        closings: What handlers do when their clients have left.
    """

    def __init__(self, settings: HubSettings) -> None:
        self.settings = settings
        self.clock = settings.clock
        self.store = settings.store
        self.outlet = Outlet(self.store, settings.dumps, settings.max_event_bytes)
        self.running = False
        self._reset()

    def _reset(self) -> None:
        self.draining = False
        self.deadline = 0.0
        settings = self.settings
        self.limits = Limits(
            settings.max_connections, settings.max_connections_per_client
        )
        self.rounds = Rounds()
        self.log = MemoryLog()
        self.private = PrivateRuns(settings.max_detached)
        self.shared = SharedRuns(self.log)
        self.leased = LeasedRuns()
        self.producers: set[Producer] = set()
        self._discard = self.producers.discard  # once, and not for each of them
        self.closings: set[asyncio.Task[None]] = set()
        self.route_settings: dict[object, RouteSettings] = {}
        self.scripts: dict[object, RouteScript] = {}
        self.encoders: dict[object, Encoder] = {}
        self.tallies: dict[str, Tally] = {}
        self.dismissals = Dismissals(
            self.store, lambda: self.rounds.open, self._dismiss, self._forget_runs
        )
        self.rechecks = Rechecks(self._dismiss)
        self._later: set[asyncio.Task[None]] = set()
        self._enders: dict[object, Callable[[], object]] = {}
        self.ticker = Ticker(self.clock, self.tick)

    # -- life ----------------------------------------------------------------------

    async def open(self, routes: Iterable[RouteSettings]) -> None:
        """Begin, at the application's start; *routes* say how quick to tick.

        Raises:
            StoreError: the store cannot work as it was configured.
        """
        self._reset()
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.released: asyncio.Future[None] = self.loop.create_future()
        self.turns = Turns()
        self.broker = Broker(self.store, self.turns)
        self.broker.watch(CHANNEL, self.dismissals.receive)
        await self.store.open(self.broker, now=self.clock.now)
        for route in routes:
            for duration in (
                route.heartbeat,
                route.resume,
                route.lifetime,
                route.recheck,
            ):
                self.ticker.serve(duration)
        self.ticker.start()
        self.running = True

    async def cursor(self) -> str:
        """See `SSE.cursor`."""
        broker = self.broker
        if not broker.ready:
            raise StoreUnavailable("the store was not reached yet: try again later")
        place = broker.head
        if not self.store.complete:
            try:
                place = max(place, await self.store.head())
            except StoreError as exc:
                _logger.debug("the cursor is this worker's: %s", exc)
        return broker.cursor(place)

    async def drain(self) -> None:
        """End all streams: connections at once, generators by being told.

        Handlers return when their generators have ended, or the grace is over; what
        still runs is logged by name, and is not waited for.
        """
        self.draining = True
        loop = asyncio.get_running_loop()
        self.deadline = until = loop.time() + self.settings.shutdown_grace
        connections = (*self.rounds.carriers, *self.rounds.open, *self.rounds.leaving)
        for connection in connections:
            connection.end("shutdown", connection.farewell())
        self.broker.end()
        self.leased.drain()
        for end in tuple(self._enders.values()):
            end()
        for producer in tuple(self.producers):
            producer.stop()
        tasks = {producer.task for producer in self.producers}
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.shutdown_grace)
        still = sorted(p.name for p in self.producers if not p.task.done())
        if still:
            _logger.warning(
                "shut down while %d generators still run their finally: %s",
                len(still),
                ", ".join(still),
                extra={"sse_event": "shutdown", "sse_running": still},
            )
        if not self.released.done():
            self.released.set_result(None)
        # What is left of the grace is for those who read slowly: no call says it.
        while loop.time() < until and any(c.leaving for c in connections):  # noqa: ASYNC110
            await asyncio.sleep(_FLUSH)

    async def close(self) -> None:
        """Stop, behind the last stream; who has not taken its end by now is cut."""
        for task in tuple(self._later):
            task.cancel()
        await self.ticker.stop()
        self.rounds.end()
        for connection in self.rounds.leaving:
            if connection.leaving:
                connection.transport.abort()
        self.rounds.leaving.clear()
        self.running = False
        await self.leased.close()
        await self.broker.close()
        await self.store.close()

    # -- connections -----------------------------------------------------------------

    def later(self, seconds: float, do: Callable[[float], None]) -> None:
        """Call *do* with the time in *seconds*, for what is too rare for a tick."""

        async def wait() -> None:
            await self.clock.sleep(seconds)
            if not self.draining:
                do(self.clock.now())

        task = asyncio.get_running_loop().create_task(wait(), name="sse-later")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def watch(self, connection: Connection, heartbeat: float) -> None:
        """Let the ticker care for *connection*, and count it."""
        self.rounds.open[connection] = heartbeat
        if connection.tally is not None:
            connection.tally.opened += 1

    def unwatch(self, connection: Connection) -> None:
        """Count *connection* no more; one that is leaving is seen out."""
        known = self.rounds.open.pop(connection, None) is not None
        if known and connection.tally is not None:
            reason = connection.closed or "client"
            connection.tally.close(reason, connection.received, connection.total)
        self.rechecks.remove(connection)
        if connection.leaving:
            self.rounds.leaving.add(connection)

    def _dismiss(self, connection: Connection, may_come_back: bool) -> None:
        """End *connection*; unless it may come back, what it is of ends with it."""
        if may_come_back:
            connection.end("reconnect", connection.farewell())
            return
        connection.dismiss()

    def _forget_runs(self, dismissal: Dismissal) -> None:
        """End the private runs that wait for clients which are not to come back."""
        for run in self.private:
            if run.reader is None and dismissal.means(run.route, run.owner, ()):
                self.private.close(run)

    def keep(self, producer: Producer) -> None:
        """Let the application's end know of *producer*."""
        self.producers.add(producer)
        producer.on_done = self._discard

    def at_drain(self, who: object, end: Callable[[], object]) -> None:
        """Call *end* when the application shuts down, unless `forget` comes before."""
        self._enders[who] = end

    def forget(self, who: object) -> None:
        """Take back `at_drain`."""
        self._enders.pop(who, None)

    def tally(self, route: str) -> Tally:
        """Return what is counted of *route*."""
        found = self.tallies.get(route)
        if found is None:
            found = self.tallies[route] = Tally()
        return found

    @property
    def connections(self) -> int:
        """How many streams are open."""
        return len(self.rounds.open)

    def cut_all(self) -> int:
        """Cut every connection, as a network would; return how many there were."""
        connections = tuple(self.rounds.open)
        for connection in (*self.rounds.carriers, *connections):
            connection.transport.abort()
        return len(connections)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.rounds.begin(now)
        self.store.tick(now)
        if self.draining:
            # Nothing begins again, and all that waits was ended.
            return
        self.rechecks.tick(now)
        self.private.expire(now)
        self.shared.tick(now)
        self.leased.tick(now)


HUB_KEY: Final = web.AppKey("aiohttp_sse_routes_hub", Hub)


def hub_of(request: web.BaseRequest, handler: str) -> Hub:
    """Return the hub of the application that *request* came to, for *handler*.

    Raises:
        NotSetUp: it has none.
    """
    if isinstance(request, web.Request):
        # As its config_dict does, which takes longer.
        for app in reversed(request.match_info.apps):
            hub = app.get(HUB_KEY)
            if hub is not None:
                return hub
    raise NotSetUp(
        f"{handler}: the application that serves it at {request.path} has no SSE plugin"
    )
