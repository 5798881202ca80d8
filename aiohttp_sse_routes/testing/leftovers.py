"""Finds what an application has left behind: runs, connections, tasks, generators.

Law: what is found is named, with the place in the code where it is. What was there
before is nobody's fault.
"""

from __future__ import annotations

__all__ = ("no_runs_left", "nothing_left")

import asyncio
import dis
import gc
import types
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from ..errors import NotSetUp
from ..http.connection import Connection
from ..http.hub import HUB_KEY, Hub
from ..streams.private import PrivateRun
from ..streams.producer import Producer
from .errors import LeftBehind
from .served import peer_of

_FEW: Final = 20
"""Looks one turn apart: most things end at once. The others are `_PAUSE` apart."""

_PAUSE: Final = 0.01


class nothing_left:  # noqa: N801 -- it is used as a function is
    """Fail if a task or an async generator is left that was begun inside.

    For ``async with``, around all of an application's life: its start, what clients do,
    and its end. What ends by itself is waited for. If the block raises, that is raised.

    Args:
        timeout: Seconds to wait for what still ends.

    Raises:
        LeftBehind: an AssertionError: something is left; each is told with its place
            in the code.
    """

    def __init__(self, *, timeout: float = 2.0) -> None:
        self._timeout = timeout
        self._tasks: set[asyncio.Task[Any]] = set()
        self._generators: weakref.WeakSet[types.AsyncGeneratorType[Any, Any]]
        self._generators = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        self._generators = weakref.WeakSet(_generators())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.check()

    async def check(self) -> None:
        """Fail if something is left, without leaving the block.

        Raises:
            LeftBehind: something is.
        """
        await _none_of(self._left, self._timeout)

    def _left(self) -> list[str]:
        here = asyncio.current_task()
        tasks = asyncio.all_tasks() - self._tasks - {here}
        return [
            *(_task_in_words(task) for task in tasks if task is not None),
            *(
                f"async generator {found.__qualname__}, never closed: {_where(found)}"
                for found in _generators()
                if found not in self._generators
            ),
        ]


async def no_runs_left(app: web.Application, *, timeout: float = 2.0) -> None:
    """Fail if *app* has a connection or a run, which may wait for its client.

    For applications that go on. What ends by itself is waited for, by real time: where
    runs wait for their clients, move the clock first.

    Args:
        app: The root application, on which ``setup`` was called.
        timeout: Seconds to wait for what still ends.

    Raises:
        LeftBehind: an AssertionError: something is left; each is told with its route
            and its place in the code.
        NotSetUp: *app* has no plugin.
    """
    hub = app.get(HUB_KEY)
    if hub is None:
        raise NotSetUp("no_runs_left() found no SSE plugin")
    await _none_of(lambda: _runs(hub), timeout)


async def _none_of(left: Callable[[], list[str]], timeout: float) -> None:
    loop = asyncio.get_running_loop()
    limit = loop.time() + timeout
    looks = 0
    while found := left():
        if loop.time() > limit:
            raise LeftBehind(found)
        looks += 1
        await asyncio.sleep(0 if looks < _FEW else _PAUSE)


def _runs(hub: Hub) -> list[str]:
    if not hub.running:
        return []
    now = hub.clock.now()
    links = [*hub.rounds.open, *hub.rounds.carriers]
    private = {run.producer: run for run in hub.private}
    # Those that have ended may be remembered for their clients.
    producers = [p for p in hub.producers if not p.task.done()]
    producers += [p for p in private if p not in hub.producers]
    return [
        *(_link_in_words(link, now) for link in links),
        *(_run_in_words(p, private.get(p), now) for p in producers),
        *(_task_in_words(task) for task in hub.closings),
    ]


# -- in words --------------------------------------------------------------------------


def _link_in_words(link: Connection, now: float) -> str:
    route = f"route {link.route!r}" if link.route else "no route"
    return (
        f"connection of {route} from {peer_of(link)}, open for {now - link.opened:g} s"
    )


def _run_in_words(producer: Producer, run: PrivateRun | None, now: float) -> str:
    text = f"run of {producer.name}"
    if run is not None:
        text += f", route {run.route!r}"
        if run.waiting_since is not None:
            waited = now - run.waiting_since
            text += f", waits for its client since {waited:g} of {run.patience:g} s"
    if producer.ending is not None:
        return f"{text}: it has ended ({producer.ending.kind}) and is remembered"
    return f"{text}: {_where(producer.iterator)}"


def _task_in_words(task: asyncio.Task[Any]) -> str:
    coro = task.get_coro()
    name = getattr(coro, "__qualname__", repr(coro))
    return f"task {task.get_name()!r} ({name}): {_where(coro)}"


def _where(found: Any) -> str:
    """Tell where what is suspended is, from the outside inwards."""
    places, outermost = [], found
    while found is not None:
        frame = _attribute(found, "cr_frame", "ag_frame", "gi_frame")
        if frame is not None:
            code = frame.f_code
            place = f"{code.co_filename}:{frame.f_lineno}"
            places.append(f"{place} in {code.co_qualname}")
        found = _attribute(found, "cr_await", "ag_await", "gi_yieldfrom")
    return " > ".join(places) or f"a {type(outermost).__qualname__}"


def _attribute(found: Any, *names: str) -> Any:
    for name in names:
        value = getattr(found, name, None)
        if value is not None:
            return value
    return None


def _generators() -> list[types.AsyncGeneratorType[Any, Any]]:
    """Return the async generators that have begun and not ended.

    One that nobody iterates is left to the garbage collector, if nobody closes it.
    """
    # asyncio's own loops keep them; to ask for all objects takes 20 ms.
    begun = getattr(asyncio.get_running_loop(), "_asyncgens", None)
    kind = types.AsyncGeneratorType
    return [
        found
        for found in (gc.get_objects() if begun is None else tuple(begun))
        if type(found) is kind and _goes_on(found)
    ]


def _goes_on(generator: Any) -> bool:
    """Return whether *generator* has begun and not ended."""
    suspended = getattr(generator, "ag_suspended", None)
    if suspended is not None:
        return bool(suspended or generator.ag_running)
    # Python 3.11 tells it by the instruction alone.
    frame = generator.ag_frame
    if frame is None:
        return False
    last: int = frame.f_code.co_code[frame.f_lasti]
    return last != dis.opmap["RETURN_GENERATOR"]
