"""The ids that events carry: places in a log, written as opaque text.

Law: pure text in, values out. Every id made by this package has the one format that
`parse` recognises, uses only ``[A-Za-z0-9._~-]`` (so that it survives headers, URLs
and CORS' list of safe bytes) and is at most 128 bytes long. A place in a log
authorises nothing; the token of a private run is unguessable.

The format is ``sse1.KIND.LOG.SEQ``, with ``.end`` behind it where a stream has ended
for good:

* ``sse1.r.TOKEN.SEQ``: event number SEQ of the private run TOKEN;
* ``sse1.l.GENERATION.SEQ``: number SEQ of the shared log of that generation;
* ``sse1.s.GENERATION.SEQ``: the same, while a snapshot that begins there is being sent:
  whoever brings it has only a part of that;
* ``sse1.h.GENERATION.SEQ``: the same, behind a hole of which the client was not told
  yet: whoever brings it is.
"""

from __future__ import annotations

__all__ = (
    "Cursor",
    "has_our_format",
    "is_end",
    "new_generation",
    "new_token",
    "parse",
    "untold",
)

import re
import secrets
from dataclasses import dataclass
from typing import Literal

# 16 digits are ten thousand years of a million events a second.
_FORMAT = re.compile(
    r"sse1\.(?:(r)\.([A-Za-z0-9_-]{22})|([lsh])\.([a-z0-9]{8,16}))\.([0-9]{1,16})(\.end)?",
    re.ASCII,
)
_PREFIX = "sse1."

Kind = Literal["r", "l", "s", "h"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a log.

    Attributes:
        kind: ``"r"`` for a private run's log, ``"l"`` for the shared log, ``"s"`` for
            a place in that whose snapshot is not complete, ``"h"`` for one behind a
            hole that was not told.
        log: The run's token, or the shared log's generation.
        seq: The number of the last event before this place; 0 is the beginning.
        end: Whether the stream has ended for good there.
    """

    kind: Kind
    log: str
    seq: int
    end: bool = False

    def __str__(self) -> str:
        tail = ".end" if self.end else ""
        return f"{_PREFIX}{self.kind}.{self.log}.{self.seq}{tail}"

    @property
    def prefix(self) -> str:
        """Everything before the number: the same for each event of one log."""
        return f"{_PREFIX}{self.kind}.{self.log}."


def parse(text: str | None) -> Cursor | None:
    """Return the place that *text* names, or None if it has not our format."""
    match = _FORMAT.fullmatch(text) if text else None
    if match is None:
        return None
    token, generation = match[2], match[4]
    if match[1]:
        return Cursor("r", token, int(match[5]), match[6] is not None)
    kind: Kind = "l" if match[3] == "l" else "s" if match[3] == "s" else "h"
    return Cursor(kind, generation, int(match[5]), match[6] is not None)


def untold(place: str) -> str:
    """Return the id of *place* for who was not told yet of a hole before it."""
    return place.replace("sse1.l.", "sse1.h.", 1)


def has_our_format(text: str) -> bool:
    """Return whether *text* could be taken for an id made here."""
    return _FORMAT.fullmatch(text) is not None


def is_end(text: str | None) -> bool:
    """Return whether *text* is the id of a stream's end: its bearer gets 204."""
    return text is not None and text.endswith(".end") and has_our_format(text)


def new_token() -> str:
    """Return an unguessable name for a private run: 128 bits from `secrets`."""
    return secrets.token_urlsafe(16)


def new_generation() -> str:
    """Return a name for a shared log that no earlier or other log has had."""
    return secrets.token_hex(6)
