"""For tests of applications that stream: endless streams, set time, faults, leaks.

Law: this module only says what is public. Nothing of the package imports it, and
nothing in it waits for a fixed time: what is asked for is waited for, and a clock moves
when it is told to.
"""

from __future__ import annotations

__all__ = (
    "Effect",
    "EventStream",
    "FaultProxy",
    "LeftBehind",
    "NotAStream",
    "SettableClock",
    "StreamCut",
    "StreamEnded",
    "StreamTimeout",
    "no_runs_left",
    "nothing_left",
    "until",
)

from .clock import SettableClock
from .errors import LeftBehind, NotAStream, StreamCut, StreamEnded, StreamTimeout
from .leftovers import no_runs_left, nothing_left
from .proxy import FaultProxy
from .served import Effect
from .stream import EventStream
from .waiting import until
