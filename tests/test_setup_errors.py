"""Bad input: each mistake is a clear error at the earliest moment there is.

The text names the function, or the argument of `setup`, and says what to write instead.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    NotSetUp,
    SharedRun,
    SSERouteDef,
    SSERoutesError,
    SSERouteTableDef,
    get_sse,
    setup,
    sse_route,
)
from aiohttp_sse_routes.http.routes import DEFAULT_TABLE
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of, until
from .rawhttp import ask

Serve = Callable[..., Awaitable[Served]]


@pytest.fixture(autouse=True)
def _default_table() -> Iterator[None]:
    """Put the default table back as it was."""
    before = DEFAULT_TABLE[:]
    DEFAULT_TABLE._items.clear()
    yield
    DEFAULT_TABLE._items[:] = before


def named(value: Any) -> str:
    """Return what a test's case is called: the same in each process."""
    text = getattr(value, "__name__", None) or repr(value)
    return re.sub(" at 0x[0-9a-f]+", "", text)


async def started(app: web.Application) -> None:
    """Start and stop *app*."""
    runner = web.AppRunner(app)
    try:
        await runner.setup()
    finally:
        await runner.cleanup()


def tells(error: BaseException, *words: str) -> None:
    """Assert that an error is ours and says all of *words*."""
    assert isinstance(error, SSERoutesError)
    for word in words:
        assert word in str(error), f"{word!r} is not in {error!s}"


# -- handlers --------------------------------------------------------------------------


async def generator(request: web.Request) -> AsyncIterator[int]:
    """Be as a handler should be."""
    yield 1


async def coroutine(request: web.Request) -> AsyncIterator[int]:
    """Be as a handler may be."""
    return generator(request)


async def channels(request: web.Request) -> Channels:
    """Be as a handler of channels should be."""
    return Channels("a")


async def untold(request: web.Request):  # type: ignore[no-untyped-def]
    """Be as a handler may be, and do not say which it is."""
    return Channels("a")


async def shared_run(run: SharedRun) -> AsyncIterator[int]:
    """Be as a shared handler should be."""
    yield 1


def plain(request: web.Request) -> int:
    """Be neither."""
    return 1


def sync_generator(request: web.Request) -> Iterator[int]:
    """Block the server."""
    yield 1


async def no_argument() -> AsyncIterator[int]:
    """Take nothing."""
    yield 1


async def two_arguments(self: object, request: web.Request) -> AsyncIterator[int]:
    """Take too much, as a method does before it is bound."""
    yield 1


async def keyword_only(*, request: web.Request) -> AsyncIterator[int]:
    """Take it by name alone."""
    yield 1


class View:
    """A class, and an object that cannot be called."""


class PlainCall:
    """An object whose call is no handler."""

    def __call__(self, request: web.Request) -> int:
        """Be neither."""
        return 1


@pytest.mark.parametrize(
    ("handler", "options", "words"),
    [
        (plain, {}, ["plain", "plain function", "async def"]),
        (plain, {"shared": True}, ["plain", "plain function", "async def"]),
        (sync_generator, {}, ["sync_generator", "sync generator", "async def"]),
        (sync_generator, {"shared": True}, ["sync_generator", "async def"]),
        (View, {}, ["View", "SSERouteDef", "method"]),
        (View(), {}, ["View", "not a function"]),
        (PlainCall(), {}, ["PlainCall", "async def"]),
        (functools.partial(plain), {}, ["plain", "async def"]),
        (lambda request: 1, {}, ["<lambda>", "async def"]),
        (print, {}, ["print", "async def"]),
        ("name", {}, ["'name'", "not a function"]),
        (None, {}, ["None", "not a function"]),
        (coroutine, {"shared": True}, ["coroutine", "shared=True", "yield", "leave"]),
        (no_argument, {}, ["no_argument", "one argument", "request"]),
        (no_argument, {"shared": True}, ["no_argument", "one argument", "SharedRun"]),
        (two_arguments, {}, ["two_arguments", "SSERouteDef(path, object.method)"]),
        (keyword_only, {}, ["keyword_only", "one argument"]),
    ],
)
@pytest.mark.parametrize("way", ["decorator", "table", "def"])
def test_what_is_no_handler(
    handler: Any, options: dict[str, Any], words: list[str], way: str
) -> None:
    """A wrong handler fails where it is decorated, and is not noted."""
    table = SSERouteTableDef()
    ways: dict[str, Callable[[], Any]] = {
        "decorator": lambda: sse_route("/path", **options)(handler),
        "table": lambda: table.sse_route("/path", **options)(handler),
        "def": lambda: SSERouteDef("/path", handler, **options),
    }
    with pytest.raises(ConfigurationError) as caught:
        ways[way]()
    tells(caught.value, "'/path'", *words)
    assert isinstance(caught.value, ValueError)
    assert not table
    assert not DEFAULT_TABLE


@pytest.mark.parametrize("decorate", [sse_route, SSERouteTableDef().sse_route])
def test_a_decorator_without_parentheses(decorate: Any) -> None:
    """``@sse_route`` alone says that it needs a path."""
    with pytest.raises(ConfigurationError) as caught:
        decorate(generator)
    tells(caught.value, "generator", "@sse_route('/path')")


@pytest.mark.parametrize(
    "path", [None, 1, "", "no-slash", "/{", "/{a", "/a}", "/{a}/{a}", "/{a:[}", b"/x"]
)
def test_paths(path: Any) -> None:
    """A path that aiohttp's router would refuse is refused where it is written."""
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef(path, generator)
    tells(caught.value, "generator", repr(path))


# -- options ---------------------------------------------------------------------------

HANDLERS: dict[str, Any] = {
    "generator": generator,
    "coroutine": coroutine,
    "channels": channels,
    "untold": untold,
    "shared": shared_run,
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("retry", value) for value in (3.0, -1, "3000", True, None)],
        *[
            ("heartbeat", value)
            for value in (0, -1, math.nan, math.inf, "15", True, None)
        ],
        *[("resume", value) for value in (-1, math.nan, math.inf, "15", True, None)],
        *[("open_timeout", value) for value in (-0.1, math.nan, "1", False, None)],
        *[("lifetime", value) for value in (0, -1, math.nan, math.inf, "1", True)],
        *[("replay", value) for value in (0, -1, 1.5, "1", True, None)],
        *[("replay_bytes", value) for value in (0, -1, 1.5, True, None)],
        *[("max_connections", value) for value in (0, -1, 1.5, "1", True)],
        *[
            ("methods", value)
            for value in (
                "GET",
                (),
                ["get"],
                ("GET", "GET"),
                ("HEAD",),
                ("OPTIONS",),
                ("GET", 1),
                ("GET ",),
                None,
                {"GET"},
            )
        ],
        *[("shared", value) for value in (1, "yes", None)],
        *[("client", value) for value in (1, 0, None)],
        *[("control_events", value) for value in (1, 0, None)],
        *[
            ("name", value)
            for value in ("", 1, "a b", "1a", "a/b", "class", "a.class", ".a", b"a")
        ],
        *[
            ("events", value)
            for value in (
                [int],
                int,
                {"a": 1},
                {1: int},
                {"a\nb": int},
                {"sse-x": int},
                {"a": int, "b": int},
            )
        ],
        *[("guard", value) for value in (1, "guard", True, sync_generator, generator)],
        *[("guard", value) for value in (no_argument, two_arguments)],
        *[("owner", value) for value in (1, "owner", sync_generator, generator)],
        ("guard", functools.partial(generator)),
        ("owner", lambda: None),
    ],
    ids=named,
)
def test_wrong_values(option: str, value: Any) -> None:
    """An impossible value fails where it is written, and says what would do."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef("/path", generator, **options)
    tells(caught.value, "generator", option)
    assert any(w in str(caught.value) for w in ("must", "write", "not ", "is ", "nam"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("retry", 0),
        ("heartbeat", 0.1),
        ("resume", 0),
        ("open_timeout", 0),
        ("lifetime", None),
        ("lifetime", 10**400),
        ("replay", 1),
        ("max_connections", None),
        ("methods", ["GET", "POST"]),
        ("name", "a.b-c:d_1"),
        ("events", {}),
        ("events", None),
        ("guard", None),
        ("guard", print),
        ("guard", functools.partial(plain)),
        ("owner", None),
    ],
)
def test_values_at_the_edge(option: str, value: Any) -> None:
    """What is possible is taken."""
    options: dict[str, Any] = {option: value}
    definition = SSERouteDef("/path", generator, **options)
    found = getattr(definition.settings, option)
    assert found == (tuple(value) if option == "methods" else value)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("coroutine", {"resume": 0, "replay": 5}),
        ("channels", {"on_slow": "conflate", "share": True, "owner": plain}),
        ("untold", {"resume": 0, "on_slow": "gap"}),
    ],
)
def test_options_that_may_mean_something(form: str, options: dict[str, Any]) -> None:
    """What a coroutine function does not say that it returns is not held against it."""
    assert options.keys() == SSERouteDef("/path", HANDLERS[form], **options).given


@pytest.mark.parametrize("option", ["heart_beat", "store", "prefix", "path_"])
def test_unknown_options(option: str) -> None:
    """A misspelt option fails, and the text lists those that there are."""
    options: dict[str, Any] = {option: 1}
    with pytest.raises(ConfigurationError) as caught:
        sse_route("/path", **options)(generator)
    tells(caught.value, "generator", repr(option), "heartbeat", "resume")
    # As for any function that has no such keyword.
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("generator", {"history": 5}),
        ("generator", {"history": 0}),
        ("generator", {"on_slow": "gap"}),
        ("generator", {"on_slow": "disconnect"}),
        ("coroutine", {"history": 5}),
        ("coroutine", {"on_slow": "gap"}),
        ("coroutine", {"share": False}),
        ("channels", {"history": 5}),
        ("channels", {"open_timeout": 1}),
        ("channels", {"replay": 5}),
        ("channels", {"replay_bytes": 5}),
        ("channels", {"resume": 0}),
        ("untold", {"history": 5}),
        ("shared", {"owner": plain}),
        ("shared", {"methods": ("POST",)}),
        ("shared", {"methods": ("GET", "POST")}),
    ],
)
def test_options_that_mean_nothing(form: str, options: dict[str, Any]) -> None:
    """An option without effect on the handler's form is an error, not a surprise."""
    (option,) = options
    is_shared: dict[str, Any] = {"shared": True} if form == "shared" else {}
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef("/path", HANDLERS[form], **is_shared, **options)
    tells(caught.value, HANDLERS[form].__name__, option, "leave")


@pytest.mark.parametrize("value", [-1, 1.5, "5", True, None])
def test_history(value: Any) -> None:
    """History is a count."""
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef("/path", shared_run, shared=True, history=value)
    tells(caught.value, "shared_run", "history")


@pytest.mark.parametrize("value", ["drop", "", None, 1])
def test_on_slow(value: Any) -> None:
    """There are so many ways to be slow."""
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef("/path", shared_run, shared=True, on_slow=value)
    tells(caught.value, "shared_run", "on_slow", "'gap'")


async def test_history_is_not_more_than_the_log() -> None:
    """More history than ``replay`` keeps is a contradiction, wherever the two stand."""
    with pytest.raises(ConfigurationError) as caught:
        SSERouteDef("/path", shared_run, shared=True, history=501)
    tells(caught.value, "shared_run", "history=501", "replay")
    SSERouteDef("/path", shared_run, shared=True, history=500)
    SSERouteDef("/path", shared_run, shared=True, history=501, replay=501)
    table = SSERouteTableDef()
    table.sse_route("/path", shared=True, history=50)(shared_run)
    with pytest.raises(ConfigurationError) as caught:
        await started(app_of(table, replay=49))
    tells(caught.value, "shared_run", "history=50", "replay=49")


async def test_methods_as_a_list_are_as_good_as_a_tuple() -> None:
    """A shared run with ``methods=["GET"]`` is what it is by default."""
    definition = SSERouteDef(
        "/path",
        shared_run,
        shared=True,
        methods=["GET"],  # type: ignore[arg-type]
    )
    assert ("GET",) == definition.settings.methods


# -- mounting --------------------------------------------------------------------------


def table_with(*paths: str, **options: Any) -> SSERouteTableDef:
    """Return a table with a route for each of *paths*."""
    table = SSERouteTableDef()
    for number, path in enumerate(paths):
        name = options.pop("name", f"route{number}")
        table.sse_route(path, name=name, **options)(generator)
    return table


@pytest.mark.parametrize("other", ["/a/{x}", "/a/{y}"])
def test_two_routes_at_one_path(other: str) -> None:
    """The second would never be reached, whatever its variables are called."""
    with pytest.raises(ConfigurationError) as caught:
        app_of(table_with("/a/{x}", "/b", other))
    tells(caught.value, "generator", other, "change the path")


@pytest.mark.parametrize("other", ["/a/{x:[a-z]+}", r"/a/{x:\d{2}}", "/a/{x}/y"])
async def test_two_routes_at_paths_that_differ(other: str) -> None:
    """Patterns make paths different, as far as can be told."""
    await started(app_of(table_with(r"/a/{x:\d+}", other)))


def test_two_routes_of_one_name() -> None:
    """A name finds one route, ours or another's."""
    app = web.Application()
    app.router.add_get("/page", coroutine, name="taken")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        setup(app, table_with("/a", name="taken"))
    tells(caught.value, "generator", "'taken'", "name=")


def test_a_table_given_twice() -> None:
    """`setup` and `add_routes` of one table is one too many."""
    table = table_with("/a")
    app = app_of(table)
    with pytest.raises(ConfigurationError) as caught:
        app.add_routes(table)
    tells(caught.value, "generator", "/a", "mounted twice", "not to both")


def test_the_default_table_given_again() -> None:
    """So it is with the default table."""
    sse_route("/a")(generator)
    app = web.Application()
    setup(app)
    with pytest.raises(ConfigurationError, match="mounted twice"):
        app.add_routes(DEFAULT_TABLE)


@pytest.mark.parametrize("where", ["root", "two prefixes", "two domains"])
async def test_a_table_in_two_places(where: str) -> None:
    """One table in an application and its sub-application is found at start."""
    table = table_with("/a")
    app = web.Application()
    setup(app, table if where == "root" else [])
    for name in ("one", "two")[: 1 if where == "root" else 2]:
        sub = web.Application()
        sub.add_routes(table)
        if where == "two domains":
            app.add_domain(f"{name}.example", sub)
        else:
            app.add_subapp(f"/{name}", sub)
    with pytest.raises(ConfigurationError) as caught:
        await started(app)
    tells(caught.value, "generator", "mounted twice", "a table for each")


def test_setup_twice() -> None:
    """The second call says how to mount more."""
    app = app_of(table_with("/a"))
    with pytest.raises(ConfigurationError) as caught:
        setup(app, [])
    tells(caught.value, "twice", "app.add_routes(table)")


async def test_setup_too_late() -> None:
    """After the start, and on a sub-application that is mounted, it is too late."""
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    with pytest.raises(ConfigurationError) as caught:
        setup(app, table_with("/a"))
    tells(caught.value, "too late", "before the application starts")
    await runner.cleanup()

    app, sub = web.Application(), web.Application()
    app.add_subapp("/sub", sub)
    with pytest.raises(ConfigurationError) as caught:
        setup(sub, table_with("/a"))
    tells(caught.value, "too late", "root", "add_subapp")


async def test_setup_on_root_and_sub_application() -> None:
    """Once, on the root: the sub-application's is found at start."""
    app, sub = web.Application(), web.Application()
    setup(app, table_with("/a"))
    setup(sub, table_with("/b", name="b"))
    app.add_subapp("/sub", sub)
    with pytest.raises(ConfigurationError) as caught:
        await started(app)
    tells(caught.value, "sub-application", "root", "sub.add_routes(table)")


@pytest.mark.parametrize("app", [None, "app", SSERouteTableDef(), web.RouteTableDef()])
def test_setup_without_an_application(app: Any) -> None:
    """Something else in its place is told."""
    with pytest.raises(ConfigurationError) as caught:
        setup(app)
    tells(caught.value, "setup", "aiohttp.web.Application")


async def test_a_route_without_setup(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A request is answered 500, and the log names the function and what to call."""
    app = web.Application()
    app.add_routes(table_with("/a"))
    served = await serve(app)
    for method in ("GET", "HEAD"):
        caplog.clear()
        assert 500 == (await ask(served, "/a", method=method)).status
        (record,) = [r for r in caplog.records if r.exc_info]
        assert record.exc_info
        error = record.exc_info[1]
        assert isinstance(error, NotSetUp)
        assert isinstance(error, RuntimeError)
        tells(error, "generator", "/a", "aiohttp_sse_routes.setup(app)", "root")


async def test_get_sse_without_setup(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """From an application or a request, it says what to call."""
    with pytest.raises(NotSetUp) as caught:
        get_sse(web.Application())
    tells(caught.value, "get_sse()", "aiohttp_sse_routes.setup(app)")

    async def handler(request: web.Request) -> web.Response:
        get_sse(request)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    served = await serve(app)
    assert 500 == (await ask(served, "/")).status
    assert "NotSetUp" in caplog.text


async def test_the_default_table_has_grown() -> None:
    """What is decorated after `setup` would never be served: the start says so."""
    sse_route("/a")(generator)
    app = web.Application()
    setup(app)
    sse_route("/b", name="late")(coroutine)
    with pytest.raises(ConfigurationError) as caught:
        await started(app)
    tells(caught.value, "coroutine", "before setup", "app.add_routes(table)")
    assert "generator" not in str(caught.value)


async def test_the_default_table_of_others_may_grow() -> None:
    """An application that has tables of its own does not care."""
    app = app_of(table_with("/a"))
    sse_route("/b")(coroutine)
    await started(app)


async def test_no_route_at_all(caplog: pytest.LogCaptureFixture) -> None:
    """It starts, and a warning says what is missing; one line tells of routes."""
    caplog.set_level(logging.INFO, "aiohttp_sse_routes")
    app = web.Application()
    setup(app)
    await started(app)
    (record,) = caplog.records
    assert logging.WARNING == record.levelno
    for word in ("no SSE route", "@sse_route", "setup(app"):
        assert word in record.getMessage()
    caplog.clear()
    await started(app_of(table_with("/a", "/b"), prefix="/events"))
    (record,) = caplog.records
    assert logging.INFO == record.levelno
    for word in ("/a", "/b", "/events/client.js"):
        assert word in record.getMessage()


# -- names in the client ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [("same", "same"), ("a.b", "aB"), ("a-b", "a.b"), (None, None)]
)
async def test_colliding_names(first: str | None, second: str | None) -> None:
    """Two routes that would be one function of the client are told at start."""
    sub = web.Application()
    sub.add_routes([SSERouteDef("/b", generator, name=second)])
    app = web.Application()
    setup(app, [SSERouteDef("/a", generator, name=first)])
    app.add_subapp("/sub", sub)
    with pytest.raises(ConfigurationError) as caught:
        await started(app)
    tells(caught.value, "/a", "/b", "generator", "name=", "client=False")


async def test_names_that_are_not_in_the_client_do_not_collide() -> None:
    """``client=False`` keeps a route out of it, and its name too."""
    app = web.Application()
    setup(
        app,
        [
            SSERouteDef("/a", generator),
            SSERouteDef("/b", generator, client=False),
            SSERouteDef("/c", coroutine, name="then", client=False),
        ],
    )
    await started(app)


@pytest.mark.parametrize("name", ["then", "constructor", "close", "to-string"])
async def test_names_that_javascript_cannot_bear(name: str) -> None:
    """A name that `sse` or every object has already is told at start."""
    with pytest.raises(ConfigurationError) as caught:
        await started(app_of(table_with("/a", name=name)))
    tells(caught.value, "generator", name)


# -- arguments of setup ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("prefix", value) for value in ("", "/", "sse", 1, "/{x}", "/a b", "/a?b")],
        *[("public_prefix", value) for value in ("app", 1, "/a#b", "/a\nb", '/"')],
        *[
            ("allow_origins", value)
            for value in (
                "*",
                "https://a.example",
                ["*"],
                ["a.example"],
                ["https://a.example/"],
                ["https://a.example/path"],
                ["https://A.example"],
                ["https://a.example:443"],
                ["null"],
                [1],
                None,
                1,
            )
        ],
        *[("max_event_bytes", value) for value in (0, -1, 1.5, "1", True, None)],
        *[("max_connections", value) for value in (0, -1, 1.5, "1", True)],
        *[("max_connections_per_client", value) for value in (0, 1.5, True)],
        *[("max_detached", value) for value in (-1, 1.5, True, None)],
        *[("shutdown_grace", value) for value in (-1, math.nan, math.inf, "1", None)],
        *[("dumps", value) for value in (1, "json", no_argument, coroutine)],
        *[("client_key", value) for value in (1, "key", plain)],
        *[("clock", value) for value in (1, object())],
        *[("routes", value) for value in (generator, [generator], ["/a"], 1, "/a")],
        *[("resume", value) for value in (-1, "15", True)],
        *[("heartbeat", value) for value in (0, math.nan)],
        *[("retry", value) for value in (3.0, -1)],
        *[("guard", value) for value in (1, generator, no_argument)],
        *[("owner", value) for value in (1, sync_generator)],
        *[("client", value) for value in (1, None)],
        *[("on_slow", value) for value in ("drop", None)],
        *[("history", value) for value in (-1, True)],
        *[(option, 1) for option in ("path", "heart_beat")],
        ("name", "a"),
        ("methods", ("POST",)),
        ("shared", True),
        ("events", {"a": int}),
    ],
    ids=named,
)
def test_wrong_arguments_of_setup(option: str, value: Any) -> None:
    """An impossible argument fails in `setup`, which says what would do."""
    options: dict[str, Any] = {"routes": [], option: value}
    app = web.Application()
    with pytest.raises(ConfigurationError) as caught:
        setup(app, **options)
    tells(caught.value, "setup", option)


@pytest.mark.parametrize("key", [generator, no_argument, "address"])
def test_wrong_client_keys(key: Any) -> None:
    """A key that cannot be asked for would fail each request."""
    with pytest.raises(ConfigurationError) as caught:
        setup(web.Application(), [], max_connections_per_client=1, client_key=key)
    tells(caught.value, "setup", "client_key")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", "/events/"),
        ("public_prefix", ""),
        ("public_prefix", "/app/"),
        ("allow_origins", []),
        ("allow_origins", {"https://a.example:8443", "http://localhost"}),
        ("allow_origins", ["http://[::1]:8080", "chrome-extension://abc"]),
        ("max_connections", None),
        ("max_detached", 0),
        ("shutdown_grace", 0),
        ("resume", 0),
        ("history", 5),
        ("lifetime", None),
        ("guard", plain),
        ("dumps", str),
        ("clock", SettableClock()),
        ("clock", None),
    ],
)
async def test_arguments_of_setup_at_the_edge(option: str, value: Any) -> None:
    """What is possible is taken; a default may mean nothing for some forms."""
    options: dict[str, Any] = {option: value}
    app = web.Application()
    routes = [
        SSERouteDef("/a", generator),
        SSERouteDef("/b", coroutine),
        SSERouteDef("/c", shared_run, shared=True),
    ]
    setup(app, routes, **options)
    if option != "clock":
        await started(app)


async def test_a_failed_start_leaves_nothing_behind() -> None:
    """After an error at start the application can be cleaned up, and no task runs."""
    before = asyncio.all_tasks()
    table = table_with("/a", name="then")
    app = app_of(table)
    with pytest.raises(ConfigurationError):
        await started(app)
    await until(lambda: asyncio.all_tasks() == before)


def test_a_partial_setup_can_be_corrected() -> None:
    """A `setup` that refused its arguments has mounted nothing: it can come again."""
    app = web.Application()
    table = table_with("/a")
    with pytest.raises(ConfigurationError):
        setup(app, table, prefix="sse")
    setup(app, table, prefix="/sse")
