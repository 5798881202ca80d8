"""What the host tells all its processes alike: its boot, and the time since.

Law: a time within one boot never goes back and does not know the wall clock, whatever
is done to that; the wall clock is asked for only where a boot begins.
"""

from __future__ import annotations

__all__ = ("Host",)

import os
import time
from typing import Final

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_NETWORK: Final = "/proc/self/ns/net"


class Host:
    """The host's clocks.

    Attributes:
        boot: What no other boot of any host has; empty where the system has no such.
        network: The namespace in which the process sees others' sockets.
    """

    def __init__(self) -> None:
        try:
            with open(_BOOT_ID, encoding="ascii") as file:
                self.boot = file.read().strip()
        except OSError:
            self.boot = ""
        try:
            self.network = f"{os.stat(_NETWORK).st_ino:x}"
        except OSError:
            self.network = ""

    def uptime(self) -> float:
        """Return seconds of this boot, those asleep included; common to processes."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def wall(self) -> float:
        """Return the wall clock's seconds since 1970."""
        return time.time()
