"""The multiplexed endpoint: several streams of a page on one connection.

Law: what it takes is checked here, whole, before anything is begun: JSON, from a page
of the same origin or of one that is allowed. What each stream may do is decided by its
own route, as if it had been asked for alone.
"""

from __future__ import annotations

__all__ = ("MOST", "Multiplex")

import asyncio
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web

from .hub import HUB_KEY, Hub, HubSettings
from .multiplex_visit import TrunkVisit, Wanted
from .response import HEADERS
from .script import busy

MOST: Final = 32
"""Streams on one connection."""

_BODY: Final = 65_536
"""Bytes of a request's body."""

_PATIENCE: Final = 10.0
"""Seconds in which the body must have come."""

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class _Stream(msgspec.Struct):
    """A sub-stream in the body of a request; what it may be in a request's head."""

    key: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,16}\Z")]
    url: Annotated[str, msgspec.Meta(pattern=r'\A/[!"$-~]*\Z', max_length=8190)]
    last_event_id: Annotated[str, msgspec.Meta(pattern=r"\A[^\r\n\0]*\Z")] | None = (
        msgspec.field(default=None, name="lastEventId")
    )


class _Body(msgspec.Struct):
    """The body of a request."""

    streams: Annotated[list[_Stream], msgspec.Meta(min_length=1, max_length=MOST)]


class _Refused(Exception):
    """The request is not one.

    Args:
        status: The answer's.
        problem: What is wrong with it.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


class Multiplex:
    """The endpoint of one application.

    Args:
        app: The root application.
        settings: Where it is, and who may use it.

    Attributes:
        route: Where it is mounted.
    """

    def __init__(self, app: web.Application, settings: HubSettings) -> None:
        self._app = app
        self._settings = settings
        self.route = app.router.add_post(settings.prefix + "/streams", self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        hub = self._app[HUB_KEY]
        wanted: list[Wanted] = []
        try:
            self._check_origin(request)
            if not hub.draining:
                wanted = self._wanted(await _body_of(request, hub))
        except _Refused as exc:
            if not hub.draining:
                return web.json_response({"error": exc.problem}, status=exc.status)
        if hub.draining or not hub.running:
            return await _send_away(request)
        return await TrunkVisit(request, hub, wanted).serve()

    def _check_origin(self, request: web.Request) -> None:
        """Refuse a page of another origin, with what its browser says of it."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._settings.allow_origins:
            return
        site = request.headers.get("Sec-Fetch-Site")
        # Where the browser does not say, a proxy may have changed the host.
        here = (
            site in ("same-origin", "none")
            if site is not None
            else origin is None or _is_at(origin, request.host)
        )
        if not here:
            raise _Refused(403, "another origin, which allow_origins does not list")

    def _wanted(self, body: bytes) -> list[Wanted]:
        try:
            streams = msgspec.json.decode(body, type=_Body).streams
        except ValueError as exc:
            raise _Refused(400, f"not a list of streams: {exc}") from None
        if len({stream.key for stream in streams}) < len(streams):
            raise _Refused(400, "not a list of streams: two have the same key")
        return [
            Wanted(stream.key, self._inside(stream.url), stream.last_event_id)
            for stream in streams
        ]

    def _inside(self, url: str) -> str:
        """Return *url* as a proxy leaves it that takes ``public_prefix`` away."""
        prefix = self._settings.public_prefix
        return url.removeprefix(prefix) if url.startswith(prefix + "/") else url


async def _body_of(request: web.Request, hub: Hub) -> bytes:
    """Return the body of *request*, which comes in time, or is refused."""
    if request.content_type != "application/json":
        raise _Refused(415, "Content-Type must be application/json")
    if (request.content_length or 0) > _BODY:
        raise _Refused(413, f"the body is over {_BODY} bytes")
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(_PATIENCE)
    body = bytearray()
    try:
        async with limit:
            hub.at_drain(limit, lambda: limit.reschedule(loop.time()))
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > _BODY:
                    raise _Refused(413, f"the body is over {_BODY} bytes")
    except TimeoutError:
        raise _Refused(408, "the body did not come") from None
    finally:
        hub.forget(limit)
    return bytes(body)


async def _send_away(request: web.Request) -> web.StreamResponse:
    """Refuse softly, at once: aiohttp would wait for the rest of a body."""
    body = busy("shutdown", control_events=True)
    response = web.Response(body=body, headers=HEADERS)
    if not request.content.is_eof():
        await response.prepare(request)
        await response.write_eof()
        request.protocol.force_close()
    return response


def _is_at(origin: str, host: str) -> bool:
    """Return whether *origin* is that of *host*; its scheme is a proxy's to change."""
    scheme, _, authority = origin.lower().partition("://")
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))
    return bool(authority) and authority == host
