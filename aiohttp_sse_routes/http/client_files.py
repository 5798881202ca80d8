"""The generated JavaScript client, as text: the route table round a static core.

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
    "compact",
    "js_name",
    "own_patterns",
    "render",
    "script_tag",
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
    close closeAll configure constructor hasOwnProperty isPrototypeOf open
    propertyIsEnumerable prototype then toJSON toLocaleString toString valueOf
    """.split()  # noqa: SIM905 -- a table of words
)

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> //[^\n]* | /\*.*?\*/ )
    | (?P<literal> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `(?:\\.|[^`\\])*`
                 | (?: (?<=[(!]) | (?<=[=:?,&|][ ]) )        # not a division
                   /(?: \\. | \[(?:\\.|[^\]\\])*\] | [^/\\\[\n] )+/ )
    | (?P<space> \s+ )
    | (?P<other> [\w$]+ | . )
    """,
    re.DOTALL | re.VERBOSE,
)
_APART: Final = re.compile(r"[\w$]{2} | \+\+ | -- | [^{(\[,;]\n", re.VERBOSE)
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
    """

    name: str
    path: str
    methods: tuple[str, ...]
    heartbeat: float
    doc: str = ""
    hello: bool = True
    slashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """What is served.

    Attributes:
        module: ``client.js``, an ES module: `sse` by default, `createSse`, `SseError`.
        classic: ``client.global.js``, a classic script that sets ``window.sse``.
        hash: 16 hexadecimal digits, different as soon as one of the two is.
    """

    module: str
    classic: str
    hash: str


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


def compact(source: str) -> str:
    """Return JavaScript without comments and without spaces that separate nothing.

    A line end goes only where a statement cannot end, or has ended with a semicolon. A
    semicolon goes before a brace, and ``const``, which is for who reads the source, is
    ``let``: one word for both compresses better. It is for the core, whose style it
    knows: a regular expression stands behind ``(``, ``!`` or an operator and one space,
    templates do not nest, no loop has an empty statement and no name is ``const``.
    """
    parts = [""]
    gap = ""
    for match in _TOKEN.finditer(source):
        word = match.group()
        if match.lastgroup == "comment":
            continue
        if match.lastgroup == "space":
            gap = "\n" if "\n" in gap + word else " "
            continue
        last = parts[-1][-1:]
        if gap and _APART.fullmatch(last + (word[0] if gap == " " else gap)):
            parts.append(gap)
        gap = ""
        if word == "}" and parts[-1] == ";":
            parts.pop()
        parts.append("let" if word == "const" else word)
    return "".join(parts)


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
    core, _, _ = environment.loader.get_source(environment, f"{_FOLDER}/core.js")
    context = {"core": compact(core), "routes": _table(routes), "prefix": prefix}
    module, classic = (
        environment.get_template(f"{_FOLDER}/{name}").render(context)
        for name in ("client.js.j2", "client.global.js.j2")
    )
    digest = hashlib.sha256(f"{module}\0{classic}".encode()).hexdigest()
    return ClientFiles(module, classic, digest[:16])


def script_tag(
    url: str, nonce: str | None = None, *, loader: jinja2.BaseLoader | None = None
) -> Markup:
    """Return the tag that includes the classic script.

    Args:
        url: Where ``client.global.js`` is.
        nonce: The page's nonce, if its Content-Security-Policy asks for one.
        loader: The loader of the user's templates, which are looked at first.
    """
    template = _environment(loader).get_template(f"{_FOLDER}/script.html.j2")
    return Markup(template.render(url=url, nonce=nonce))  # noqa: S704 -- autoescaped


@functools.lru_cache(maxsize=8)
def _environment(loader: jinja2.BaseLoader | None) -> jinja2.Environment:
    ours = jinja2.PackageLoader("aiohttp_sse_routes.templates", "")
    prefixed = jinja2.PrefixLoader({_FOLDER: ours})
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([loader, prefixed]) if loader else prefixed,
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
    )


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
    return [path, method, round(route.heartbeat * 1000), route.hello]
