"""Whose connections are whose, so that they can be cut.

Law: a visitor cuts nobody else's. A visitor is a browser, by a cookie that the page
sets; without one, as for curl, an address. Nothing is kept of who has left.
"""

from __future__ import annotations

__all__ = ("Visitors", "check_origin")

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from hashlib import blake2s
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

    def named(self, request: web.Request) -> str:
        """Return the name of a browser: what it brought, or a new one."""
        return request.cookies.get(_COOKIE) or token_urlsafe()

    def welcome(
        self, request: web.Request, response: web.StreamResponse, name: str
    ) -> None:
        """Let *response* tell a browser that it is called *name*, if it is new."""
        if name != request.cookies.get(_COOKIE):
            response.set_cookie(_COOKIE, name, httponly=True, samesite="Lax", path="/")

    def public_name(self, request: web.Request, name: str | None = None) -> str:
        """Return what a visitor is called before others, which tells no cookie.

        Args:
            request: The visitor's.
            name: The cookie that the visitor is about to have.
        """
        known = name[:_LONGEST] if name else _name(request)
        return blake2s(known.encode(), digest_size=6).hexdigest()

    def check(self, request: web.Request) -> None:
        """Refuse a visitor who wants to be.

        Raises:
            HTTPServiceUnavailable: the visitor has asked for an outage.
        """
        if self._now() < self._refused_until.get(_name(request), 0.0):
            raise web.HTTPServiceUnavailable(text="an outage that you asked for\n")

    def admit(self, request: web.Request) -> None:
        """Note a connection: the guard of all streams.

        Raises:
            HTTPServiceUnavailable: as `check`.
        """
        self.check(request)
        self._forget()
        if request.transport is not None:
            self._transports[_name(request)].add(request.transport)

    def cut(self, request: web.Request) -> int:
        """Cut the visitor's connections as a network would; return how many."""
        check_origin(request)
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


def check_origin(request: web.Request) -> None:
    """Refuse what another site's page has sent in the visitor's name.

    Raises:
        HTTPForbidden: it is from there.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in (
        "same-origin",
        "none",
    ):
        raise web.HTTPForbidden(text=f"{request.method} from another site\n")
