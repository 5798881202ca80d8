"""What a test may know of the application that it talks to, from its inside.

Law: asked, not changed; an application that is not known, or has no plugin, has
nothing.
"""

from __future__ import annotations

__all__ = (
    "Effect",
    "app_of",
    "clock_of",
    "is_held_up",
    "links_of",
    "peer_of",
)

from collections.abc import Callable, Generator
from typing import Any

from aiohttp import web

from ..http.connection import Connection
from ..http.hub import HUB_KEY, Hub
from .waiting import until

Address = tuple[Any, ...]


class Effect:
    """What a call has done at once; to be awaited until the server has seen it.

    Args:
        seen: Whether it has; None where the application is not known.
        what: What it has seen then, in words.
    """

    def __init__(self, seen: Callable[[], object] | None, what: str) -> None:
        self._seen = seen
        self._what = what

    def __await__(self) -> Generator[Any, None, None]:
        if self._seen is None:
            raise RuntimeError(
                f"{self._what}: that is known of an application only: open the stream "
                "on a TestClient, or give EventStream(..., app=app)"
            )
        return until(self._seen, what=self._what).__await__()


def app_of(client: Any) -> web.Application | None:
    """Return the application that *client* talks to, where that is known."""
    app = getattr(client, "app", None)
    return app if isinstance(app, web.Application) else None


def _hub_of(app: web.Application | None) -> Hub | None:
    """Return what *app* has while it runs; None where it has no plugin."""
    hub = app.get(HUB_KEY) if app is not None else None
    return hub if hub is not None and hub.running else None


def clock_of(app: web.Application | None) -> Any:
    """Return the clock that *app* goes by."""
    hub = _hub_of(app)
    return hub.clock if hub is not None else None


def links_of(app: web.Application | None) -> list[Connection]:
    """Return the connections on which *app* streams."""
    hub = _hub_of(app)
    return [] if hub is None else [*hub.rounds.open, *hub.rounds.carriers]


def peer_of(link: Connection) -> Address | None:
    """Return the address of the client of *link*, without what is IPv6's own."""
    address = link.transport.get_extra_info("peername")
    return tuple(address[:2]) if isinstance(address, tuple) else None


def is_held_up(app: web.Application | None, link: Connection) -> bool:
    """Return whether what is for the client of *link* has to wait for it."""
    hub = _hub_of(app)
    runs = [] if hub is None else [run for run in hub.private if run.reader is link]
    return link.blocked or any(run.producer.is_paused for run in runs)
