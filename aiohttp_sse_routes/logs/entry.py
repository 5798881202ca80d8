"""The words of a log: what goes in, what comes out, and what a place in it is.

Law: values only. A number means the same in every process that shares a log, as long
as the log is of the same generation.
"""

from __future__ import annotations

__all__ = (
    "Appended",
    "Bounds",
    "Draft",
    "Entry",
    "Fence",
    "Lease",
    "Lineage",
    "Page",
    "check_channel",
)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ..cursor import Cursor
from ..errors import ConfigurationError

_LONGEST_NAME: Final = 512


class Draft(NamedTuple):
    """An event that is to be appended.

    Attributes:
        lines: Its block on the wire, without the ``id`` line.
        key: What ``on_slow="conflate"`` keeps the newest of; None for no key.
    """

    lines: bytes
    key: str | None = None


class Entry(NamedTuple):
    """An event in the log.

    Attributes:
        seq: Its number. There is one sequence for all channels, and it only grows.
        prev: The number of the channel's entry before it; 0 if it is the first. So
            who knows the channel's newest number sees at once whether any is missing.
        channel: The channel's name.
        lines: See `Draft`.
        key: See `Draft`.
    """

    seq: int
    prev: int
    channel: str
    lines: bytes
    key: str | None = None


class Appended(NamedTuple):
    """Where an append went.

    Attributes:
        generation: The log's, at that moment.
        first: The number of the first event.
        last: The number of the last one; all between are the append's.
        repeated: Whether they were there already, by their ``idempotency_key``.
    """

    generation: str
    first: int
    last: int
    repeated: bool = False


class Page(NamedTuple):
    """What `Store.read` returns.

    Attributes:
        entries: In the order of their numbers.
        place: Through which number everything that is retained was returned.
        floors: For each channel of which anything behind the place asked for is gone:
            the number of the newest that is.
    """

    entries: Sequence[Entry]
    place: int
    floors: Mapping[str, int]


class Fence(NamedTuple):
    """The proof of a lease that an append brings.

    Attributes:
        name: The lease's.
        number: Its number: each holder of the same name has a higher one.
    """

    name: str
    number: int


class Lease(NamedTuple):
    """The answer to who asks for a lease.

    Attributes:
        number: The asker's number while it holds the lease; None: another holds it.
        wanted: Seconds since anybody asked with ``wanted=True``, the asker included;
            infinite if nobody has, or long ago.
    """

    number: int | None
    wanted: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a channel holds; what is over is dropped, the oldest first.

    Attributes:
        max_events: The most events.
        max_age: The most seconds that an event is held.
        max_bytes: The most bytes of all its events; None for no bound. The newest
            event is held whatever its size.
    """

    max_events: int = 1000
    max_age: float = 3600.0
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_int("max_events", self.max_events)
        if self.max_bytes is not None:
            _check_int("max_bytes", self.max_bytes)
        age = self.max_age
        if isinstance(age, bool) or not isinstance(age, (int, float)) or not age > 0:
            raise ConfigurationError(
                f"max_age={age!r} must be a number of seconds, above 0"
            )


@dataclass(frozen=True, slots=True)
class Lineage:
    """The generations of a log: which places in it are still places in it.

    A log begins a new generation when it may have lost what it had given out: it was
    emptied, or a replica that had less was promoted. The numbers of a generation are
    above all numbers of those before it, also above the lost ones.

    Attributes:
        generation: The present one, ``[a-z0-9]{8,16}``.
        forks: For each earlier generation that is continued: the newest number of it
            that is still in the log. The log through there is shared.
        lost: For a channel: the newest number of it that was given out and is lost by
            such a fork, as far as anybody has told.
    """

    generation: str
    forks: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)

    def place(self, cursor: Cursor) -> int | None:
        """Return the number that *cursor* means in this log; None if it means none.

        It may be above the log's newest number: then the cursor comes from the future,
        or from a worker that is further.
        """
        if cursor.kind not in ("l", "h"):
            return None
        if cursor.log == self.generation:
            return cursor.seq
        last = self.forks.get(cursor.log)
        return cursor.seq if last is not None and cursor.seq <= last else None

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""
        return str(Cursor("l", self.generation, place))


def check_channel(name: Any) -> str:
    """Return *name* if it can be a channel's.

    Raises:
        ValueError: it is empty, longer than 512 bytes in UTF-8, holds control
            characters, or cannot be encoded.
        TypeError: it is not a ``str``.
    """
    if not isinstance(name, str):
        raise TypeError(f"channel {name!r} must be a str, as in 'room:42'")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"channel {name!r} cannot be encoded as UTF-8") from None
    if not 0 < size <= _LONGEST_NAME:
        raise ValueError(
            f"channel {name[:40]!r} must have 1 to {_LONGEST_NAME} bytes, not {size}"
        )
    if any(char < " " for char in name):
        # Names that begin with such a character are this package's own.
        raise ValueError(f"channel {name!r} must not contain control characters")
    return name


def _check_int(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name}={value!r} must be an int of at least 1")
