"""The application of the demo: its streams, two pages, and two ways to cut them.

Law: what the page loads comes from here and is in the package; a strict policy sees to
it. The log is written when an answer begins, by a thread, without ids or queries.
"""

from __future__ import annotations

__all__ = ("POLICY", "create_app", "default_tree")

import asyncio
import inspect
import logging
import os
import sysconfig
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp_jinja2
import jinja2
from aiohttp import hdrs, web

from aiohttp_sse_routes import MemoryStore, SQLiteStore, Store, setup

from . import chat, streams
from .tree import Tree
from .visitors import Visitors

PAGE: Final = Path(__file__).parent / "page"

POLICY: Final = (
    "default-src 'none'; "
    "connect-src 'self'; "
    "img-src data:; "
    "script-src 'self'; "
    "style-src 'self'; "
    "worker-src 'self'; "
    "base-uri 'none'; "
    "form-action 'none'; "
    "frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
"""What the page may load: what is here, and the picture in its own text."""

_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PAGES: Final = {"/": "index.html", "/chat": "chat.html"}
# The handlers whose sources the pages show.
_SHOWN: Final = (streams.machine, streams.log, streams.job, streams.room, chat.say)
_FILES: Final = ("demo.css", "demo.js", "streams.js", "chat.js")

# Seconds that what is said is kept.
_KEPT: Final = 30 * 86_400

# Nothing that a visitor sends is longer.
_LONGEST_BODY: Final = 8192
_LOG_BYTES: Final = 1_000_000
_LONGEST_PATH: Final = 200
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_FORWARDED: Final = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR, "X-Real-IP")
_HASHERS: Final = min(4, os.cpu_count() or 1)

_DATA: Final = web.AppKey("data", Path)
_LOGGER: Final = web.AppKey("logger", logging.Logger)
_SOURCES: Final = web.AppKey("sources", dict[str, str])
_VISITORS: Final = web.AppKey("visitors", Visitors)


def default_tree() -> Tree:
    """Return the standard library of this Python."""
    root = Path(sysconfig.get_path("stdlib"))
    return Tree(root, skip=("__pycache__", "site-packages", "dist-packages"))


def create_app(
    *,
    tree: Tree | None = None,
    follow: Path | None = None,
    data: Path | None = None,
    job_seconds: float = 40.0,
    outage: float = 5.0,
    now: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Return the demo.

    Args:
        tree: What the job hashes; by default the standard library.
        follow: The file to follow; by default the application's own log.
        data: The file in which the chat is kept; by default it is kept in memory.
        job_seconds: How long a job takes at least; 0 for as quick as it can.
        outage: Seconds that a visitor who asks for it is refused.
        now: What time it is, for the outage and for how much is said.
    """
    app = web.Application(client_max_size=_LONGEST_BODY)
    visitors = app[_VISITORS] = Visitors(outage=outage, now=now)
    app[_SOURCES] = {shown.__name__: inspect.getsource(shown) for shown in _SHOWN}
    app[streams.TREE] = tree or default_tree()
    app[streams.JOB_SECONDS] = job_seconds
    if data is not None:
        app[_DATA] = data
    app.cleanup_ctx.append(_hashing)
    if follow is None:
        app.cleanup_ctx.append(_logging)
        app.on_response_prepare.append(_log)
    else:
        app[streams.FOLLOWED] = follow
    aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(PAGE))
    # Back after a second and not three: whoever cuts is looking.
    setup(
        app,
        streams.routes,
        store=_store(data),
        guard=visitors.admit,
        retry=1000,
        max_connections=1000,
        inspector=_is_here,
    )
    chat.setup_chat(app, chat.Chat(visitors, now))
    app.add_routes([web.get(path, _page) for path in _PAGES])
    app.add_routes([web.get(f"/{name}", _file) for name in _FILES])
    app.add_routes([web.post("/cut", _cut), web.post("/outage", _outage)])
    return app


def _store(data: Path | None) -> Store:
    if data is None:
        return MemoryStore()
    # Whoever comes after a month is told that there was more. What is sent while the
    # file cannot be written waits for a moment; the page tries again after that.
    return SQLiteStore(data, max_age=_KEPT, wait=2.0)


def _is_here(request: web.Request) -> bool:
    """Tell whether a request comes from this machine, and no proxy says otherwise."""
    proxied = any(name in request.headers for name in _FORWARDED)
    here = request.remote in _LOOPBACK and request.url.host in _LOOPBACK
    return here and not proxied


async def _page(request: web.Request) -> web.StreamResponse:
    app = request.app
    visitors = app[_VISITORS]
    visitor = visitors.named(request)
    context = {
        "visitor": visitors.public_name(request, visitor),
        "here": request.path,
        "data": app.get(_DATA),
        "longest": {"text": chat.LONGEST_TEXT, "name": chat.LONGEST_NAME},
        "job_seconds": app[streams.JOB_SECONDS],
        "outage": visitors.outage,
        "tree": app[streams.TREE].root,
        "followed": app[streams.FOLLOWED],
        "own_log": _LOGGER in app,
        # As text: what a client says is no URL until somebody has parsed it.
        "origin": f"{request.scheme}://{request.host}",
        "sources": app[_SOURCES],
    }
    response = aiohttp_jinja2.render_template(_PAGES[request.path], request, context)
    response.headers.update(_HEADERS)
    response.headers[hdrs.CACHE_CONTROL] = "no-cache"
    visitors.welcome(request, response, visitor)
    return response


async def _file(request: web.Request) -> web.StreamResponse:
    headers = {**_HEADERS, hdrs.CACHE_CONTROL: "no-cache"}
    return web.FileResponse(PAGE / request.path.lstrip("/"), headers=headers)


async def _cut(request: web.Request) -> web.Response:
    return web.json_response({"cut": request.app[_VISITORS].cut(request)})


async def _outage(request: web.Request) -> web.Response:
    visitors = request.app[_VISITORS]
    cut = visitors.refuse(request)
    return web.json_response({"cut": cut, "refused": visitors.outage})


async def _hashing(app: web.Application) -> AsyncIterator[None]:
    pool = ThreadPoolExecutor(_HASHERS, thread_name_prefix="demo-hash")
    app[streams.POOL] = pool
    yield
    # Not waited for: what still runs is one step.
    pool.shutdown(wait=False, cancel_futures=True)


async def _logging(app: web.Application) -> AsyncIterator[None]:
    """Have a file of the answers given, which the demo follows itself."""
    prefix = "aiohttp-sse-routes-demo-"
    with TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        path = app[streams.FOLLOWED] = Path(folder, "access.log")
        file = RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8"
        )
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        queue: SimpleQueue[Any] = SimpleQueue()
        # Not one of the process's loggers: there may be several demos in it.
        logger = app[_LOGGER] = logging.Logger("demo")  # noqa: LOG001
        logger.addHandler(QueueHandler(queue))
        listener = QueueListener(queue, file)
        listener.start()
        yield
        await asyncio.to_thread(listener.stop)
        file.close()


async def _log(request: web.Request, response: web.StreamResponse) -> None:
    """Write the line of an answer that begins; the path as it came, for its escapes."""
    stream = response.content_type == "text/event-stream"
    resumed = " resumed" if stream and hdrs.LAST_EVENT_ID in request.headers else ""
    path = request.rel_url.raw_path[:_LONGEST_PATH]
    request.app[_LOGGER].info(
        "%s %s %d%s%s",
        request.method,
        path,
        response.status,
        " stream" if stream else "",
        resumed,
    )
