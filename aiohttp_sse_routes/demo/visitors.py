"""Whose connections are whose, so that they can be cut.

Law: a visitor cuts nobody else's. A visitor is a browser, by a cookie that the page
sets; without one, as for curl, an address. Nothing is kept of who has left.
"""

from __future__ import annotations

__all__ = ("Visitors",)

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Final

from aiohttp import web

_COOKIE: Final = "demo_visitor"
_LONGEST: Final = 64


class Visitors:
    """The connections of everybody who follows a stream.

    Args:
        outage: Seconds that a visitor is refused for.
        now: What time it is.
    """

    def __init__(
        self, *, outage: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.outage = outage
        self._now = now
        self._transports: defaultdict[str, set[asyncio.Transport]] = defaultdict(set)
        self._refused_until: dict[str, float] = {}

    def welcome(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let *response* tell a browser who it is, if it does not know."""
        if _COOKIE not in request.cookies:
            response.set_cookie(
                _COOKIE, token_urlsafe(), httponly=True, samesite="Lax", path="/"
            )

    def admit(self, request: web.Request) -> None:
        """Note a connection: the guard of all streams.

        Raises:
            HTTPServiceUnavailable: the visitor has asked for an outage.
        """
        visitor = _name(request)
        if self._now() < self._refused_until.get(visitor, 0.0):
            raise web.HTTPServiceUnavailable(text="an outage that you asked for\n")
        self._forget()
        if request.transport is not None:
            self._transports[visitor].add(request.transport)

    def cut(self, request: web.Request) -> int:
        """Cut the visitor's connections as a network would; return how many."""
        _check_origin(request)
        transports = self._transports.pop(_name(request), set())
        # A connection whose stream has ended may have brought this very request.
        cut = [
            t for t in transports if not t.is_closing() and t is not request.transport
        ]
        for transport in cut:
            transport.abort()
        return len(cut)

    def refuse(self, request: web.Request) -> int:
        """Cut them, and refuse new ones for a while; return how many were cut."""
        count = self.cut(request)
        now = self._now()
        for visitor, until in tuple(self._refused_until.items()):
            if until <= now:
                del self._refused_until[visitor]
        self._refused_until[_name(request)] = now + self.outage
        return count

    def _forget(self) -> None:
        for visitor, transports in tuple(self._transports.items()):
            transports -= {t for t in transports if t.is_closing()}
            if not transports:
                del self._transports[visitor]


def _name(request: web.Request) -> str:
    cookie = request.cookies.get(_COOKIE)
    return cookie[:_LONGEST] if cookie else f"at {request.remote}"


def _check_origin(request: web.Request) -> None:
    """Refuse what another site's page has sent in the visitor's name."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in (
        "same-origin",
        "none",
    ):
        raise web.HTTPForbidden(text=f"{request.method} from another site\n")
