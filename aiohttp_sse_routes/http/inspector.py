"""The inspector: a page that shows the streams as they are, and lets one open them.

Law: nothing of it is mounted without a guard, and the guard is asked for the page, for
each of its streams, and again while one lasts. What the page shows it puts there as
text. Its own stream is not counted in what it shows, and is under no limit: whoever
looks at a server that is full is to see it.
"""

from __future__ import annotations

__all__ = ("Guard", "Inspector")

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple

import jinja2
from aiohttp import hdrs, web

from ..serialize import to_json
from .client_files import render_file, source_of
from .event_source import EventSourceResponse
from .handler import maybe_await
from .hub import Hub
from .imperative import sse_response
from .mounted import Found
from .observed import observed, routes_of
from .pages import file_response

Guard = Callable[[web.Request], Any]
"""Called with the request, awaited if need be; raises to refuse, False is 403."""

_INTERVAL: Final = 1.0
"""Seconds between looks at the application, however many look."""

_ASK_AGAIN: Final = 10
"""Looks between two questions to the guard, while a page is open."""

_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES: Final = {"js": "text/javascript", "css": "text/css"}


class _File(NamedTuple):
    text: str
    digest: str


class _Look(EventSourceResponse):
    """The stream of the page itself."""

    counted: ClassVar[bool] = False


class Inspector:
    """The page of one application.

    Args:
        app: The root application.
        hub: The application's.
        guard: Who may see it.
    """

    def __init__(self, app: web.Application, hub: Hub, guard: Guard) -> None:
        self._hub = hub
        self._guard = guard
        self._prefix = hub.settings.prefix
        self._base = hub.settings.public_prefix + self._prefix
        self._routes: list[dict[str, Any]] = []
        self._files: dict[str, _File] = {}
        self._loader: jinja2.BaseLoader | None = None
        self._seen: dict[str, Any] = {}
        self._seen_at = 0.0
        router, prefix = app.router, self._prefix
        router.add_get(prefix, self._redirect)
        router.add_get(prefix + "/", self._page)
        router.add_get(prefix + "/inspector-{hash}.{kind:js|css}", self._file)
        router.add_get(prefix + "/inspector/live", self._live, allow_head=False)

    def open(self, found: Found, loader: jinja2.BaseLoader | None) -> None:
        """Render what is the same for everybody, at start.

        Args:
            found: The application's routes.
            loader: The loader of the user's templates, which are looked at first.
        """
        self._loader = loader
        self._routes = routes_of(found, self._hub)
        self._seen = {}
        for kind in _TYPES:
            text = source_of(f"inspector.{kind}", loader)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            self._files[kind] = _File(text, digest)

    async def _check(self, request: web.Request) -> None:
        if await maybe_await(self._guard(request)) is False:
            raise web.HTTPForbidden

    # -- the page ----------------------------------------------------------------------

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        await self._check(request)
        raise web.HTTPFound(f"{self._base}/")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        await self._check(request)
        nonce = secrets.token_urlsafe(16)
        text = render_file(
            "inspector.html.j2",
            self._loader,
            base=self._base,
            prefix=self._prefix,
            nonce=nonce,
            **{kind: file.digest for kind, file in self._files.items()},
        )
        headers = {
            "Content-Security-Policy": _POLICY.format(nonce=nonce),
            hdrs.CACHE_CONTROL: "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        return file_response(request, *self._files[kind], _TYPES[kind])

    # -- its stream --------------------------------------------------------------------

    async def _live(self, request: web.Request) -> web.StreamResponse:
        await self._check(request)
        async with sse_response(request, response_cls=_Look) as stream:
            over = asyncio.ensure_future(stream.wait())
            try:
                await stream.send(_json(self._routes), event="routes", retry=1000)
                looks = 0
                while not over.done():
                    looks += 1
                    if looks % _ASK_AGAIN == 0:
                        # What it raises ends the stream, as a refusal does.
                        await self._check(request.clone())
                    await stream.send(_json(self._look()), event="look")
                    await asyncio.wait({over}, timeout=_INTERVAL)
            finally:
                over.cancel()
        return stream

    def _look(self) -> dict[str, Any]:
        """Return what is so, as it was seen last if that is not long ago."""
        now = asyncio.get_running_loop().time()
        if not self._seen or now - self._seen_at >= _INTERVAL / 2:
            self._seen = observed(self._hub)
            self._seen_at = now
        return self._seen


def _json(value: Any) -> str:
    return to_json(value).decode()
