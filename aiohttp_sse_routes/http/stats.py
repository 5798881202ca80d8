"""The counts of an application, by route: what ``SSE.stats()`` returns.

Law: everything is asked at the moment of the question, in one pass over the open
connections, so that nobody pays for an answer that nobody wants.
"""

from __future__ import annotations

__all__ = ("RouteStats", "Slow", "Stats", "stats_of")

from collections import Counter
from typing import Any, Final, TypedDict, get_args

from ..streams.reader import GapReason
from .hub import Hub
from .link import CloseReason
from .tally import Tally

_CLOSED: Final[tuple[CloseReason, ...]] = get_args(CloseReason)
_GAPS: Final[tuple[GapReason, ...]] = get_args(GapReason)


class Slow(TypedDict):
    """What was done about clients that were too slow.

    Attributes:
        told: Gaps told to clients that the log has moved past.
        disconnected: Clients sent away for that.
        conflated: Times that one was given the newest event by key, in place of all.
        stalled: Clients cut, for they took nothing for half a minute.
    """

    told: int
    disconnected: int
    conflated: int
    stalled: int


class RouteStats(TypedDict):
    """The counts of one route since the application's start.

    Attributes:
        open: Connections that are open now.
        opened: Connections that were opened. It is ``open`` and all of ``closed``.
        closed: Connections that were closed, by reason: each word is there, 0 too.
        events: Events that were written to connections, those of replay and of
            snapshots too; one that ten clients got is ten.
        bytes: Bytes that were written to them, with all that is no event.
        replays: Connections that went on where they had been (``continued``), and had
            missed something meanwhile.
        gaps: Gaps that clients were told of, by reason: each word is there.
        slow: What was done about slow clients.
        detached: Private runs that wait for their clients now.
    """

    open: int
    opened: int
    closed: dict[str, int]
    events: int
    bytes: int
    replays: int
    gaps: dict[str, int]
    slow: Slow
    detached: int


class Stats(dict[str, RouteStats]):
    """The counts by the routes' names: a plain ``dict``, as JSON has it."""

    @property
    def total(self) -> RouteStats:
        """The counts of all routes together."""
        total = _counted(Tally())
        for row in self.values():
            _add(total, row)
        return total


def stats_of(hub: Hub) -> Stats:
    """Return the counts of *hub*'s application."""
    stats = Stats({name: _counted(tally) for name, tally in hub.tallies.items()})
    open_now: dict[Tally, list[int]] = {t: [0, 0, 0] for t in hub.tallies.values()}
    closing: list[tuple[Tally, CloseReason]] = []
    for connection in hub.rounds.open:
        tally = connection.tally
        if tally is None:
            continue
        sums = open_now[tally]
        if connection.closed is None:
            sums[0] += 1
        else:
            # Its handler is yet to have its turn.
            closing.append((tally, connection.closed))
        sums[1] += connection.received
        sums[2] += connection.total
    rows = dict(zip(hub.tallies.values(), stats.values(), strict=True))
    for tally, (count, events, nbytes) in open_now.items():
        row = rows[tally]
        row["open"] = count
        row["events"] += events
        row["bytes"] += nbytes
    for tally, reason in closing:
        rows[tally]["closed"][reason] += 1
        rows[tally]["slow"]["stalled"] += reason == "stalled"
    for name, count in Counter(hub.private.detached()).items():
        if name in stats:
            stats[name]["detached"] = count
    return stats


def _counted(tally: Tally) -> RouteStats:
    """Return what *tally* has counted, without what is open."""
    return RouteStats(
        open=0,
        opened=tally.opened,
        closed={reason: tally.closed[reason] for reason in _CLOSED},
        events=tally.events,
        bytes=tally.bytes,
        replays=tally.replays,
        gaps={reason: tally.gaps[reason] for reason in _GAPS},
        slow=Slow(
            told=tally.gaps["slow"],
            disconnected=tally.disconnected,
            conflated=tally.conflated,
            stalled=tally.closed["stalled"],
        ),
        detached=0,
    )


def _add(total: RouteStats, row: RouteStats) -> None:
    sums: Any = total
    for name, count in row.items():
        if isinstance(count, dict):
            for word, value in count.items():
                sums[name][word] += value
        else:
            sums[name] += count
