"""What pages need: the generated client, and where the streams are.

Law: the client is rendered once a start, from the routes that are mounted, and served
by content hash; into the application's Jinja environment go two functions and nothing
else, whether it is set up before us or after. Without aiohttp-jinja2's setup the files
are served all the same.
"""

from __future__ import annotations

__all__ = ("PAGES_KEY", "Pages", "file_response")

import functools
import gzip
import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote, urlencode

import jinja2
from aiohttp import hdrs, web
from markupsafe import Markup

from ..cursor import parse
from ..errors import ConfigurationError
from .client_files import (
    ClientFiles,
    ClientRoute,
    js_name,
    own_patterns,
    render,
    script_tag,
    session_name,
)
from .described import Mounting
from .documents import Documents
from .hub import HUB_KEY, HubSettings
from .mounted import Found, all_apps
from .requests import QUERY_NAMES
from .routes import SSERouteDef
from .sharing import sharing_of

_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"
_LONGEST_ID: Final = 200


class Pages:
    """The files and functions of one application.

    Args:
        app: The root application.
        settings: Where things are served.
        schema: Whether ``openapi.json`` is.
    """

    def __init__(
        self, app: web.Application, settings: HubSettings, *, schema: bool = False
    ) -> None:
        self._app = app
        self._settings = settings
        self._schema = schema
        self._documents: Documents | None = None
        self._files: ClientFiles | None = None
        self._resources: dict[str, web.AbstractResource] = {}

    def mount(self) -> None:
        """Add the routes of the files, and the functions if Jinja is there already."""
        router, prefix = self._app.router, self._settings.prefix
        router.add_get(prefix + "/client.js", self._serve_module)
        router.add_get(prefix + "/client.global.js", self._serve_classic)
        router.add_get(prefix + "/client-{hash}.js", self._serve_module)
        router.add_get(prefix + "/client.global-{hash}.js", self._serve_classic)
        router.add_get(prefix + "/hub-{hash}.js", self._serve_hub)
        router.add_get(prefix + "/client.d.ts", self._serve_declarations)
        router.add_get(prefix + "/client-{hash}.d.ts", self._serve_declarations)
        if self._schema:
            router.add_get(prefix + "/openapi.json", self._serve_openapi)
        router.add_post(prefix + "/close", self._close)
        self._app[PAGES_KEY] = self
        self._extend_environments()

    def open(self, found: Found) -> None:
        """Render the client of the routes *found*, at start.

        Raises:
            ConfigurationError: two routes have one name, or one that JavaScript cannot
                bear.
        """
        routes: dict[str, ClientRoute] = {}
        mountings: dict[str, Mounting] = {}
        taken: dict[str, SSERouteDef] = {}
        self._resources.clear()
        for item in found:
            definition, resource = item.definition, item.route.resource
            assert resource is not None
            self._resources.setdefault(definition.name, resource)
            settings = definition.settings.with_defaults(
                definition.given, self._settings.defaults, definition.label
            )
            if not settings.client:
                continue
            try:
                name = js_name(definition.name)
            except ValueError as exc:
                raise ConfigurationError(f"{definition.label}: {exc}") from None
            if taken.setdefault(name, definition) is not definition:
                raise ConfigurationError(
                    f"{taken[name]!r} and {definition!r} would both be sse.{name} in "
                    "the client: give one another name=, or client=False"
                )
            pattern = resource.get_info().get("pattern")
            mountings[name] = Mounting(
                name, definition, settings, resource.canonical, pattern
            )
            routes[name] = ClientRoute(
                name=name,
                path=resource.canonical,
                methods=definition.settings.methods,
                heartbeat=settings.heartbeat,
                doc=definition.doc,
                hello=settings.control_events,
                slashes=own_patterns(pattern.pattern) if pattern is not None else (),
                share=sharing_of(definition.handler, definition.form, settings),
            )
        self._files = render(
            list(routes.values()),
            prefix=self._settings.prefix,
            loader=self.user_loader(),
        )
        self._documents = Documents(
            list(mountings.values()), self._settings.public_prefix, self.user_loader()
        )
        self._extend_environments()

    def files(self) -> dict[str, str]:
        """Return what is served, by the names of the files."""
        assert self._files is not None
        assert self._documents is not None
        files = {
            "client.js": self._files.module,
            "client.global.js": self._files.classic,
            "client.d.ts": self._documents.declarations.text,
        }
        if self._schema:
            files["openapi.json"] = self._documents.openapi.text
        return files

    @property
    def route_names(self) -> Collection[str]:
        """The names of all routes."""
        return self._resources.keys()

    @property
    def client_url(self) -> str:
        """Where the client is, as a page imports it."""
        return f"{self._base}{self._settings.prefix}/client.js"

    def url(self, route: str, /, **parts: Any) -> str:
        """See `SSE.url`."""
        resource = self._resources.get(route)
        if resource is None:
            raise ConfigurationError(
                f"sse_url({route!r}): there is no such route; the routes are "
                f"{', '.join(sorted(self._resources)) or 'none'}"
            )
        after = parts.pop("after", None)
        path = resource.canonical
        pattern = resource.get_info().get("pattern")
        slashes = own_patterns(pattern.pattern) if pattern is not None else ()
        for name in _VARIABLE.findall(path):
            if name not in parts:
                raise ConfigurationError(
                    f"sse_url({route!r}): the path {path} needs {name}="
                )
            text = str(parts.pop(name))
            if text in ("", "None", ".", ".."):
                raise ConfigurationError(
                    f"sse_url({route!r}): {name}={text!r} cannot be in the path {path}"
                )
            safe = "/" if name in slashes else ""
            path = path.replace("{" + name + "}", quote(text, safe=safe))
        query = [(k, v) for k, v in parts.items() if v is not None]
        if after is not None:
            query.append((QUERY_NAMES[0], after))
        tail = "?" + urlencode(query, doseq=True) if query else ""
        return f"{self._base}{path}{tail}"

    def client(self, *, nonce: str | None = None, session: object = None) -> Markup:
        """Return the script tag: ``{{ sse_client() }}``.

        Args:
            nonce: The page's nonce, if its Content-Security-Policy asks for one.
            session: Who is logged in, as the id of a user or of a session; None for
                nobody. Tabs of one browser where it is the same share the streams of
                channels.
        """
        if self._files is None:
            raise ConfigurationError(
                "sse_client(): the client is rendered when the application starts; "
                "render the page in a handler"
            )
        url = f"{self._base}{self._settings.prefix}/client.global-{self._files.hash}.js"
        tag: Markup = script_tag(url, nonce, session_name(session))
        return tag

    @property
    def _base(self) -> str:
        return self._settings.public_prefix

    # -- the application's Jinja environments ------------------------------------------

    def _extend_environments(self) -> None:
        for app in all_apps(self._app):
            for key in app:
                environment = app[key]
                if isinstance(environment, jinja2.Environment):
                    # Into the same dict: cached templates look there.
                    environment.globals.setdefault("sse_client", self.client)
                    environment.globals.setdefault("sse_url", self.url)

    def user_loader(self) -> jinja2.BaseLoader | None:
        """Return the loader of the application's own templates, if it has any."""
        for key in self._app:
            environment = self._app[key]
            if isinstance(environment, jinja2.Environment) and environment.loader:
                return environment.loader
        return None

    # -- files -----------------------------------------------------------------------

    async def _serve_module(self, request: web.Request) -> web.StreamResponse:
        assert self._files is not None
        return file_response(request, self._files.module, self._files.hash)

    async def _serve_classic(self, request: web.Request) -> web.StreamResponse:
        assert self._files is not None
        return file_response(request, self._files.classic, self._files.hash)

    async def _serve_hub(self, request: web.Request) -> web.StreamResponse:
        assert self._files is not None
        return file_response(request, self._files.hub, self._files.build)

    async def _serve_declarations(self, request: web.Request) -> web.StreamResponse:
        assert self._documents is not None
        text, digest = self._documents.declarations
        return file_response(request, text, digest, "application/typescript")

    async def _serve_openapi(self, request: web.Request) -> web.StreamResponse:
        assert self._documents is not None
        text, digest = self._documents.openapi
        return file_response(request, text, digest, "application/json")

    async def _close(self, request: web.Request) -> web.StreamResponse:
        """End the private run whose id the body is: the client's ``close()``.

        The token in it is unguessable and is what a connection to the run needs too.
        """
        text = (await request.content.read(_LONGEST_ID)).decode(errors="replace")
        self._app[HUB_KEY].private.close_by(parse(text.strip()))
        return web.Response(status=204)


def file_response(
    request: web.Request,
    text: str,
    digest: str,
    content_type: str = "text/javascript",
) -> web.Response:
    """Return the answer with a file that is served by content hash.

    Args:
        request: What it answers; the hash that it asks for, if any, is in its path.
        text: The file.
        digest: Its hash.
        content_type: Its type.
    """
    asked = request.match_info.get("hash")
    if asked is None:
        caching = _REVALIDATE
    elif asked == digest:
        caching = _IMMUTABLE
    else:
        # Another worker's, as in a rolling deploy: ours will do, for now.
        caching = "no-store"
    headers = {
        hdrs.CACHE_CONTROL: caching,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
        "X-Content-Type-Options": "nosniff",
    }
    body = text.encode()
    if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = _compressed(body)
    response = web.Response(
        body=body,
        content_type=content_type,
        charset="utf-8",
        headers=headers,
    )
    response.etag = digest
    if any(tag.value in (digest, "*") for tag in request.if_none_match or ()):
        response = web.Response(status=304, headers={hdrs.CACHE_CONTROL: caching})
        response.etag = digest
    return response


@functools.lru_cache(maxsize=8)
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, 9, mtime=0)


_VARIABLE: Final = re.compile(r"\{([^{}]+)\}")

PAGES_KEY: Final = web.AppKey("aiohttp_sse_routes.pages", Pages)
"""Where the application keeps its `Pages`."""
