"""This machine's processor, memory and network, as its system counts them.

Law: a rate is the difference of two readings over the time between them; nothing is
smoothed. Linux is read from /proc, other systems by psutil. Everything here blocks,
for less than a millisecond but for the first sample.
"""

from __future__ import annotations

__all__ = (
    "Counters",
    "NoMeter",
    "Sample",
    "read_proc",
    "read_psutil",
    "reader",
    "samples",
)

import itertools
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")

_FIRST: Final = 0.1
"""Seconds that the first sample is over, so that there is one at once."""

# Columns of /proc/stat; guest time behind them is part of user's already.
_IDLE: Final = slice(3, 5)
_ALL: Final = slice(0, 8)


class NoMeter(Exception):
    """There is neither /proc nor psutil."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the machine did since the sample before.

    Attributes:
        n: The sample's number in this run, from 1.
        at: When it was taken, in seconds since 1970.
        seconds: What time it is over.
        processor: Per cent of all cores' time that was not idle.
        cores: The same of each core.
        load: Processes that ran or waited, over 1, 5 and 15 minutes; None where the
            system does not say.
        memory: Bytes in use: all but what programs could have.
        memory_total: Bytes there are.
        received: Bytes a second that came in, over all interfaces with the loopback.
        sent: Bytes a second that went out.
    """

    n: int
    at: float
    seconds: float
    processor: float
    cores: list[float]
    load: list[float] | None
    memory: int
    memory_total: int
    received: float
    sent: float


class Counters(NamedTuple):
    """One reading; the first of *busy* and *total* is all cores together."""

    time: float
    busy: list[float]
    total: list[float]
    memory: int
    memory_total: int
    received: int
    sent: int


def read_proc(proc: Path = PROC) -> Counters:
    """Read the files that Linux has for it."""
    busy, total = [], []
    for line in (proc / "stat").read_text().splitlines():
        if not line.startswith("cpu"):
            break
        ticks = [float(tick) for tick in line.split()[1:]]
        total.append(sum(ticks[_ALL]))
        busy.append(total[-1] - sum(ticks[_IDLE]))
    memory = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, amount = line.partition(":")
        memory[name] = int(amount.split()[0]) * 1024
    received = sent = 0
    for line in (proc / "net" / "dev").read_text().splitlines()[2:]:
        columns = line.partition(":")[2].split()
        received += int(columns[0])
        sent += int(columns[8])
    used = memory["MemTotal"] - memory["MemAvailable"]
    now = time.monotonic()
    return Counters(now, busy, total, used, memory["MemTotal"], received, sent)


def read_psutil() -> Counters:
    """Ask psutil.

    Raises:
        ImportError: it is not installed.
    """
    import psutil

    busy, total = [0.0], [0.0]
    for times in psutil.cpu_times(percpu=True):
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total.append(sum(times) - guest)
        busy.append(total[-1] - idle)
    total[0], busy[0] = sum(total), sum(busy)
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    return Counters(
        time.monotonic(),
        busy,
        total,
        memory.total - memory.available,
        memory.total,
        network.bytes_recv if network else 0,
        network.bytes_sent if network else 0,
    )


def reader(proc: Path | None = None) -> Callable[[], Counters]:
    """Return what reads the counters on this system.

    Raises:
        NoMeter: nothing does.
    """
    proc = proc or PROC
    if all((proc / name).exists() for name in ("stat", "meminfo", "net/dev")):
        return lambda: read_proc(proc)
    try:
        read_psutil()
    except ImportError:
        raise NoMeter(
            "this system has no /proc: pip install 'aiohttp-sse-routes[demo]' brings "
            "psutil, which knows others"
        ) from None
    return read_psutil


def samples(read: Callable[[], Counters] | None = None) -> Generator[Sample]:
    """Yield a sample each time it is asked for one, of the time since the last.

    Args:
        read: What reads the counters; by default what `reader` finds.

    Raises:
        NoMeter: nothing does, on this system.
    """
    read = read or reader()
    before = read()
    time.sleep(_FIRST)
    for n in itertools.count(1):
        now = read()
        seconds = max(now.time - before.time, 1e-6)
        shares = [
            _share(*pair)
            for pair in zip(
                before.busy, now.busy, before.total, now.total, strict=False
            )
        ]
        yield Sample(
            n=n,
            at=time.time(),
            seconds=round(seconds, 3),
            processor=shares[0],
            cores=shares[1:],
            load=_load(),
            memory=now.memory,
            memory_total=now.memory_total,
            received=_rate(before.received, now.received, seconds),
            sent=_rate(before.sent, now.sent, seconds),
        )
        before = now


def _share(busy: float, busy_now: float, total: float, total_now: float) -> float:
    # The kernel says itself that its count of waiting may go back.
    if total_now <= total:
        return 0.0
    share = 100 * (busy_now - busy) / (total_now - total)
    return round(min(100.0, max(0.0, share)), 1)


def _rate(before: int, now: int, seconds: float) -> float:
    # An interface that has gone takes its count with it.
    return round(max(0, now - before) / seconds, 1)


def _load() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):
        return None
