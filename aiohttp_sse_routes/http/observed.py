"""What the inspector shows of one application, as JSON can carry it.

Law: it is only looked at, and only while somebody looks; of many connections a few are
told one by one. No id, token or event is in it: those who see the page see whom the
application serves, and not what it says to them.
"""

from __future__ import annotations

__all__ = ("MOST", "observed", "routes_of")

import heapq
import os
import re
from typing import Any, Final

from .client_files import own_patterns
from .connection import Connection
from .hub import Hub
from .mounted import Found
from .stats import stats_of

MOST: Final = 50
"""Connections told one by one: those that take no more first, then the newest."""

_FORMS: Final = {"generator": "private", "coroutine": "coroutine", "shared": "shared"}
_VARIABLE: Final = re.compile(r"\{(\w+)\}")


def routes_of(found: Found, hub: Hub) -> list[dict[str, Any]]:
    """Return what is fixed of the routes: where they are, and with which options."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in found:
        definition, resource = item.definition, item.route.resource
        assert resource is not None
        path = resource.canonical
        pattern = resource.get_info().get("pattern")
        settings = item.endpoint.target.settings_for(hub)
        rows[definition.name, path] = {
            "name": definition.name,
            "path": path,
            "methods": list(settings.methods),
            "form": _FORMS[definition.form],
            "doc": definition.doc,
            "parameters": _VARIABLE.findall(path),
            "slashes": own_patterns(pattern.pattern) if pattern is not None else (),
            "heartbeat": settings.heartbeat,
        }
    return [*rows.values()]


def observed(hub: Hub) -> dict[str, Any]:
    """Return what is so now."""
    now = hub.clock.now()
    stats = stats_of(hub)
    counted = [c for c in hub.rounds.open if c.tally is not None and c.closed is None]
    names = {tally: name for name, tally in hub.tallies.items()}
    shown = heapq.nsmallest(MOST, counted, key=lambda c: (not c.blocked, -c.opened))
    return {
        "at": hub.loop.time(),
        "worker": os.getpid(),
        "routes": stats,
        "total": stats.total,
        "waiting": sum([c.blocked for c in counted]),
        "kept": _kept(hub),
        "connections": [_told(c, names[c.tally], now) for c in shown if c.tally],
    }


def _told(connection: Connection, route: str, now: float) -> dict[str, Any]:
    peer = connection.transport.get_extra_info("peername")
    return {
        "route": route,
        "client": f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "",
        "channels": list(connection.channels[:8]),
        "seconds": now - connection.opened,
        "events": connection.received,
        "bytes": connection.total,
        "state": "slow" if connection.blocked else connection.standing.value,
    }


def _kept(hub: Hub) -> list[dict[str, Any]]:
    """Return the logs: how many there are, with their events and bytes here."""
    tail = hub.store.tail
    private = [run.feed for run in hub.private]
    shared = [stream.feed.ring for stream in hub.shared]
    return [
        {
            "log": f"channels, {type(hub.store).__name__}",
            "count": tail.channels,
            "events": None,
            "bytes": tail.nbytes,
        },
        *(
            {
                "log": log,
                "count": len(kept),
                "events": sum(map(len, kept)),
                "bytes": sum([one.nbytes for one in kept]),
            }
            for log, kept in (("private runs", private), ("shared runs", shared))
        ),
    ]
