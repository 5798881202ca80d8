"""The generated JavaScript client, as text: the route table round a static core.

The core and the hub are rendered as ``core.min.js`` and ``hub.min.js``, which
``tests/browser/build.js`` makes of ``core.js`` and ``hub.js``.

Law: values in, text out; no I/O but reading templates, nothing of aiohttp. A value
reaches JavaScript through ``tojson`` only and HTML through autoescape only, and what
is rendered depends on nothing but the routes, the prefix and the templates, so that
every worker serves the same bytes under the same hash.

Templates come from an environment of its own, so that no setting of the application's
environment changes them. Its loader looks at the user's templates first, under
``sse_routes/``: a file ``sse_routes/client.js.j2`` there takes the place of ours.
"""

from __future__ import annotations

__all__ = (
    "ClientFiles",
    "ClientRoute",
    "js_name",
    "own_patterns",
    "render",
    "render_file",
    "script_tag",
    "session_name",
    "source_of",
)

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from markupsafe import Markup

from ..errors import ConfigurationError

_FOLDER: Final = "sse_routes"

# What `sse` has already, what every object has, and `then`, which would make `await`
# call the route.
_TAKEN: Final = frozenset(
    """
    EventSource close closeAll configure constructor hasOwnProperty isPrototypeOf open
    propertyIsEnumerable prototype then toJSON toLocaleString toString valueOf
    """.split()  # noqa: SIM905 -- a table of words
)

# So that a build is told from a hash at sight.
_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_OWN_PATTERN: Final = re.compile(r"\(\?P<(\w+)>(?!\[\^\{\}/\]\+\))")


@dataclass(frozen=True, slots=True)
class ClientRoute:
    """One route as the client knows it.

    Attributes:
        name: Its function's name in JavaScript, as `js_name` gives it.
        path: Its canonical path, as ``/rooms/{room}``.
        methods: Its HTTP methods; the client uses GET where it is one of them, else
            the first.
        heartbeat: Seconds between heartbeats, from which the client knows after how
            much silence a connection is dead; 0 for a route without.
        doc: The handler's docstring. It is not rendered into JavaScript.
        hello: Whether a stream begins with ``sse-hello``. If it does not (a route with
            ``control_events=False``), it counts as open at its headers.
        slashes: The parameters that have a regular expression of their own: slashes
            in their values stay as they are, and they may be empty.
        share: What its streams share, as `sharing_of` says: 0 nothing, 1 a connection
            with others of the tab, 2 and 3 with all tabs.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    heartbeat: float
    doc: str = ""
    hello: bool = True
    slashes: tuple[str, ...] = ()
    share: int = 0


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """What is served.

    Attributes:
        module: ``client.js``, an ES module: `sse` by default, `createSse`, `SseError`.
        classic: ``client.global.js``, a classic script that sets ``window.sse``.
        hub: ``hub-BUILD.js``, by which streams share a connection: a module, and the
            script of a SharedWorker.
        hash: 16 hexadecimal digits, different as soon as one of the two clients is.
        build: 16 letters, different as soon as the hub or a route is: pages of two
            builds have nothing in common.
    """

    module: str
    classic: str
    hub: str
    hash: str
    build: str


def js_name(name: str) -> str:
    """Return the JavaScript name of a route: dots, dashes and colons to camelCase.

    A word that JavaScript reserves will do: ``sse.delete()`` is a property.

    Raises:
        ConfigurationError: `sse` cannot have a function of that name.
    """
    first, *others = re.split(r"[.:-]", name)
    result = first + "".join(part[:1].upper() + part[1:] for part in others)
    if not result.isidentifier():
        problem = "it is no identifier"
    elif result in _TAKEN or (result.startswith("__") and result.endswith("__")):
        problem = "that means something else there"
    else:
        return result
    raise ConfigurationError(
        f"the JavaScript client cannot have a function {result!r} for the route "
        f"{name!r}: {problem}. Give the route another name with name=..., or keep it "
        "out of the client with client=False"
    )


def own_patterns(pattern: str) -> tuple[str, ...]:
    """Return the parameters that have a regular expression of their own.

    Args:
        pattern: What aiohttp made of a route's path, as its resource's
            ``get_info()["pattern"].pattern`` says: there a plain parameter matches
            ``[^{}/]+``, and the canonical path no longer tells the two apart.
    """
    return tuple(_OWN_PATTERN.findall(pattern))


def render(
    routes: Sequence[ClientRoute],
    *,
    prefix: str,
    loader: jinja2.BaseLoader | None = None,
) -> ClientFiles:
    """Return the client of *routes*.

    Args:
        routes: The routes that the client has a function for.
        prefix: The path below which it is served, as ``/_sse``. With the script's own
            URL it tells the client where the application is.
        loader: The loader of the user's templates, which are looked at first.

    Raises:
        ConfigurationError: Two routes have the same name.
    """
    environment = _environment(loader)
    assert environment.loader is not None
    context: dict[str, Any] = {"routes": _table(routes), "prefix": prefix}
    for part in ("core", "hub"):
        name = f"{_FOLDER}/{part}.min.js"
        context[part], _, _ = environment.loader.get_source(environment, name)
    hub = environment.get_template(f"{_FOLDER}/hub.js.j2")
    table = repr(sorted(context["routes"].items()))
    build = _digest(hub.render(context, build=""), table, prefix).translate(_LETTERS)
    context |= {"build": build, "hub_file": f"hub-{build}.js"}
    module, classic = (
        environment.get_template(f"{_FOLDER}/{name}").render(context)
        for name in ("client.js.j2", "client.global.js.j2")
    )
    digest = _digest(module, classic)
    return ClientFiles(module, classic, hub.render(context), digest, build)


def session_name(session: object) -> str | None:
    """Return what the page is told of who is logged in; None for nobody.

    It tells one from another and no more: what a page says is seen by many.
    """
    if session is None or session == "":
        return None
    return hashlib.sha256(f"aiohttp-sse-routes {session}".encode()).hexdigest()[:16]


def script_tag(
    url: str,
    nonce: str | None = None,
    session: str | None = None,
    *,
    loader: jinja2.BaseLoader | None = None,
) -> Markup:
    """Return the tag that includes the classic script.

    Args:
        url: Where ``client.global.js`` is.
        nonce: The page's nonce, if its Content-Security-Policy asks for one.
        session: Who is logged in, as `session_name` gives it.
        loader: The loader of the user's templates, which are looked at first.
    """
    template = _environment(loader).get_template(f"{_FOLDER}/script.html.j2")
    text = template.render(url=url, nonce=nonce, session=session)
    return Markup(text)  # noqa: S704 -- autoescaped


def render_file(
    name: str, loader: jinja2.BaseLoader | None = None, **context: Any
) -> str:
    """Return the template *name*, ours or the user's, with *context*.

    Args:
        name: As ``client.d.ts.j2``.
        loader: The loader of the user's templates, which are looked at first.
        **context: What the template is given.
    """
    return _environment(loader).get_template(f"{_FOLDER}/{name}").render(context)


def source_of(name: str, loader: jinja2.BaseLoader | None = None) -> str:
    """Return the file *name*, ours or the user's, as it is.

    Args:
        name: As ``inspector.js``.
        loader: The loader of the user's templates, which are looked at first.
    """
    environment = _environment(loader)
    assert environment.loader is not None
    text, _, _ = environment.loader.get_source(environment, f"{_FOLDER}/{name}")
    return text


@functools.lru_cache(maxsize=8)
def _environment(loader: jinja2.BaseLoader | None) -> jinja2.Environment:
    ours = jinja2.PackageLoader("aiohttp_sse_routes.templates", "")
    prefixed = jinja2.PrefixLoader({_FOLDER: ours})
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([loader, prefixed]) if loader else prefixed,
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
    )


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _table(routes: Sequence[ClientRoute]) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {}
    for route in routes:
        if route.name in table:
            raise ConfigurationError(
                f"the routes {table[route.name][0]} and {route.path} are both "
                f"{route.name!r} in the JavaScript client: give one of them another "
                "name with name=..."
            )
        table[route.name] = _row(route)
    return table


def _row(route: ClientRoute) -> list[Any]:
    def mark(match: re.Match[str]) -> str:
        return f"{{{match[1]}*}}" if match[1] in route.slashes else match[0]

    path = _PARAMETER.sub(mark, route.path)
    methods = [name for name in route.methods if name != "HEAD"]
    method = "GET" if "GET" in methods or not methods else methods[0]
    return [path, method, round(route.heartbeat * 1000), route.hello, route.share]
