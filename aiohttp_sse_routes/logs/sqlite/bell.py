"""How processes that share an SQLite log wake each other: by empty datagrams.

Law: a bell may be rung for nothing, and may fail to be heard; who listens looks again
soon anyway. Ringing never waits.
"""

from __future__ import annotations

__all__ = ("Bell",)

import secrets
import select
import socket
import sys
import threading
from collections.abc import Iterable


class Bell:
    """A place where a process is rung up.

    Where the system has abstract UNIX sockets it is one, and leaves nothing behind when
    the process ends, however it does. Elsewhere only the process itself can ring it.

    Args:
        network: From where it can be rung.
        listens: Whether anybody waits for it here.

    Attributes:
        address: Its own address.
        network: From where it can be rung; empty if it cannot be at all.
    """

    def __init__(self, network: str, *, listens: bool) -> None:
        self._socket: socket.socket | None = None
        self._event = threading.Event()
        self.address = f"aiohttp-sse-routes-{secrets.token_hex(8)}"
        self.network = network if listens else ""
        if sys.platform == "linux":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if listens:
                self._socket.bind(f"\0{self.address}")
            self._poll = select.poll()  # select() knows only so many sockets
            self._poll.register(self._socket, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Return whether it was rung, after *seconds* at the latest."""
        if self._socket is None:
            rung = self._event.wait(seconds)
            self._event.clear()
            return rung
        if not self._poll.poll(seconds * 1000):
            return False
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            return True

    def ring(self) -> None:
        """Wake who waits here."""
        if self._socket is None:
            self._event.set()
        else:
            self.ring_others([self.address])

    def ring_others(self, addresses: Iterable[str]) -> list[str]:
        """Wake who waits at *addresses*; return those where nobody is any more."""
        gone = []
        if self._socket is not None:
            for address in addresses:
                try:
                    self._socket.sendto(b"", f"\0{address}")
                except ConnectionRefusedError:
                    gone.append(address)
                except OSError:
                    pass  # it has been rung often enough to be awake
        return gone

    def close(self) -> None:
        """Be gone."""
        if self._socket is not None:
            self._socket.close()
