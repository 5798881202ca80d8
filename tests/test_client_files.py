"""The generated client: what is rendered, and that it works as it is served.

The tests of its behaviour are in ``tests/js``; they run here, on the files as rendered.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import jinja2
import pytest
from aiohttp import ClientSession, web

from aiohttp_sse_routes import SSERouteTableDef
from aiohttp_sse_routes.errors import ConfigurationError
from aiohttp_sse_routes.http.client_files import (
    ClientFiles,
    ClientRoute,
    js_name,
    own_patterns,
    render,
    script_tag,
    session_name,
)

from .helpers import Served, app_of

ROOT = Path(__file__).parents[1]

TEMPLATES = ROOT / "templates"
BROWSER = ROOT / "tests" / "browser"
BUILD = BROWSER / "build.js"

# What the tests in tests/js take from the core's source, which is served under short
# names.
INTERNALS = "BACKOFF, backoffMs, createParser, retryAfterMs"
HUB_INTERNALS = (
    "createLink, createMux, createSource, createStream, page, refusal, serveTabs"
)

ROUTES = (
    ClientRoute("room", "/rooms/{room}", ("GET",), 15.0),
    ClientRoute("clock", "/clock", ("GET",), 15.0, share=2),
    ClientRoute("files", "/files/{path}", ("GET",), 15.0, slashes=("path",)),
    ClientRoute("ask", "/ask", ("HEAD", "POST"), 15.0),
    ClientRoute("plain", "/plain", ("GET",), 0.5, hello=False),
    ClientRoute("delete", "/delete", ("GET",), 15.0),
)

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="the client's tests need node, 20 or newer"
)


def table(files: ClientFiles) -> dict[str, list[object]]:
    """Return the route table as the module has it."""
    match = re.search(r"^const routes = (.*);$", files.module, re.MULTILINE)
    assert match is not None
    value: dict[str, list[object]] = json.loads(match[1])
    return value


def node(*arguments: str | Path, folder: Path) -> None:
    """Run node, which is to succeed."""
    result = subprocess.run(
        ["node", "--no-warnings", *arguments],
        env={**os.environ, "SSE_CLIENT_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the rendered files, laid out as they are served."""
    files = render(ROUTES, prefix="/_sse")
    top = tmp_path_factory.mktemp("client")
    (top / "_sse").mkdir()
    (top / "_sse" / "client.mjs").write_text(files.module)
    (top / "_sse" / "client.global.js").write_text(files.classic)
    core = (TEMPLATES / "core.min.js").read_text()
    (top / "core.mjs").write_text(f"{core}\nexport {{ createClient, SseError }};\n")
    source = (TEMPLATES / "core.js").read_text()
    (top / "internals.mjs").write_text(f"{source}\nexport {{ {INTERNALS} }};\n")
    source += (TEMPLATES / "hub.js").read_text()
    (top / "hub.mjs").write_text(f"{source}\nexport {{ {HUB_INTERNALS} }};\n")
    return top


@needs_node
@pytest.mark.parametrize("name", ["client.mjs", "client.global.js"])
def test_parses(folder: Path, name: str) -> None:
    """Both files are JavaScript."""
    node("--check", folder / "_sse" / name, folder=folder)


@needs_node
@pytest.mark.timeout(120)
def test_behaviour(folder: Path) -> None:
    """Everything in tests/js holds for the client as it is served."""
    tests = sorted((ROOT / "tests" / "js").glob("*.test.mjs"))
    assert tests
    node("--test", *tests, folder=folder)


needs_modules = pytest.mark.skipif(
    not (BROWSER / "node_modules" / "terser").is_dir(),
    reason="the tools that check and build the client are not there (make node)",
)


@needs_node
@needs_modules
@pytest.mark.timeout(120)
def test_lint() -> None:
    """The sources of the client are right by eslint and by tsc, in its strict mode."""
    node(BROWSER / "lint.js", folder=BROWSER)


@needs_node
@needs_modules
@pytest.mark.timeout(120)
def test_built(tmp_path: Path) -> None:
    """What is served was made of the sources as they are now."""
    node(BUILD, tmp_path, folder=tmp_path)
    for name in ("core.min.js", "hub.min.js"):
        assert (tmp_path / name).read_text() == (TEMPLATES / name).read_text()


@pytest.mark.parametrize("kind", ["module", "classic"])
def test_size(kind: str) -> None:
    """What is the same for everybody is at most 6 KB on the wire, the hub apart."""
    text: str = getattr(render((), prefix="/_sse"), kind)
    assert len(gzip.compress(text.encode(), compresslevel=6)) <= 6 * 1024


async def test_size_as_served(serve: Callable[..., Awaitable[Served]]) -> None:
    """With a route it is, too, as it goes over the wire, under either address."""
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}")
    async def room(request: web.Request) -> AsyncIterator[int]:
        yield 1

    served = await serve(app_of(table))
    async with ClientSession(auto_decompress=False) as session:
        for name in ("client.js", "client.global.js"):
            async with session.get(f"{served.base}/_sse/{name}") as response:
                assert "gzip" == response.headers["Content-Encoding"]
                assert len(await response.read()) <= 6 * 1024


@pytest.mark.parametrize("kind", ["module", "classic"])
def test_content_security_policy(kind: str) -> None:
    """Nothing in it needs ``unsafe-eval``, ``unsafe-inline`` or a trusted type."""
    text: str = getattr(render(ROUTES, prefix="/_sse"), kind)
    forbidden = r"\b(eval|Function|innerHTML|document\.write|importScripts|Worker)\b"
    assert None is re.search(rf"{forbidden}\s*[(=]", text)
    assert None is re.search(r"set(Timeout|Interval)\(\s*[\"'`]", text)


def test_silent() -> None:
    """The client writes nothing to the console."""
    assert "console" not in render(ROUTES, prefix="/_sse").module


def test_table() -> None:
    """A row has path, method, heartbeat in ms, whether a hello comes, and the sharing.

    A parameter that may hold slashes is marked.
    """
    assert {
        "room": ["/rooms/{room}", "GET", 15000, True, 0],
        "clock": ["/clock", "GET", 15000, True, 2],
        "files": ["/files/{path*}", "GET", 15000, True, 0],
        "ask": ["/ask", "POST", 15000, True, 0],
        "plain": ["/plain", "GET", 500, False, 0],
        "delete": ["/delete", "GET", 15000, True, 0],
    } == table(render(ROUTES, prefix="/_sse"))


def test_escaping() -> None:
    """No path, docstring or prefix gets out of its place in the script."""
    nasty = "</script><!-- \u2028 ';alert(1)//{{ 7*7 }}\\"
    files = render(
        [ClientRoute("room", nasty, ("GET",), 15.0, doc=f"*/ DOC {nasty}")],
        prefix=nasty,
    )
    for text in (files.module, files.classic, files.hub):
        assert "</script" not in text.lower()
        assert "<!--" not in text
        assert "\u2028" not in text
        assert "DOC" not in text
        assert "49" not in text.rpartition("\n}")[2]
    assert nasty == table(files)["room"][0]


@needs_node
def test_escaped_files_parse(tmp_path: Path) -> None:
    """What was escaped is still JavaScript."""
    files = render(
        [ClientRoute("room", "/</script>'\"`\\{room}\n", ("GET",), 1.0)],
        prefix="/'\"\\</script>",
    )
    for name, text in (("a.mjs", files.module), ("b.js", files.classic)):
        (tmp_path / name).write_text(text)
        node("--check", tmp_path / name, folder=tmp_path)


def test_hash() -> None:
    """The hash is of what is served: the same for the same, else another."""
    files = render(ROUTES, prefix="/_sse")
    assert files == render(list(reversed(ROUTES)), prefix="/_sse")
    assert re.fullmatch("[0-9a-f]{16}", files.hash)
    assert files.hash != render(ROUTES[:1], prefix="/_sse").hash
    assert files.hash != render(ROUTES, prefix="/other").hash


def test_two_of_one_name() -> None:
    """Two routes of one name are an error that names both and the fix."""
    other = ClientRoute("room", "/other", ("GET",), 15.0)
    with pytest.raises(ConfigurationError, match=r"/rooms/\{room\} and /other .*name="):
        render([ROUTES[0], other], prefix="/_sse")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("room", "room"),
        ("room_events", "room_events"),
        ("_private", "_private"),
        ("room-events", "roomEvents"),
        ("api.v1.room-events", "apiV1RoomEvents"),
        ("api:room", "apiRoom"),
        ("Room.events", "RoomEvents"),
        ("größe", "größe"),
        ("delete", "delete"),
        ("default", "default"),
    ],
)
def test_js_name(name: str, expected: str) -> None:
    """Dots, dashes and colons become camelCase, the rest stays as it is.

    That is so for the words that JavaScript reserves, too: a property may be one.
    """
    assert expected == js_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "then",
        "open",
        "close",
        "closeAll",
        "close-all",
        "configure",
        "constructor",
        "toString",
        "__proto__",
        "__init__",
        "<lambda>",
        "",
        "a..b c",
        "1st",
    ],
)
def test_js_name_refused(name: str) -> None:
    """A name that `sse` cannot bear is an error that names the fix."""
    with pytest.raises(ValueError, match="name="):
        js_name(name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/{b}/{c}", ()),
        ("/a/{b:.+}", ("b",)),
        (r"/{a}/{b:\d+}/{c:[^{}]*}.json", ("b", "c")),
    ],
)
def test_own_patterns(path: str, expected: tuple[str, ...]) -> None:
    """Of aiohttp's pattern can be read which parameters have one of their own."""
    resource = web.UrlDispatcher().add_resource(path)
    assert expected == own_patterns(resource.get_info()["pattern"].pattern)


def test_script_tag() -> None:
    """The tag has the address and, where there is one, the nonce, escaped as HTML."""
    assert '<script src="/_sse/client.global-0.js"></script>' == script_tag(
        "/_sse/client.global-0.js"
    )
    assert (
        '<script src="/?a=1&amp;b=%22&#34;&gt;" nonce="n&#39;1"></script>'
        == script_tag('/?a=1&b=%22">', "n'1")
    )


def test_script_tag_with_a_session() -> None:
    """Who is logged in is told apart in the tag, and not told."""
    names = [session_name(session) for session in ("ann", "bob", 7, "7", 0)]
    assert names[2] == names[3]
    assert 4 == len(set(names))
    assert None is session_name(None) is session_name("")
    tag = script_tag("/x.js", "n", names[0])
    assert f'<script src="/x.js" nonce="n" data-session="{names[0]}"></script>' == tag
    assert "ann" not in tag


def test_overridden() -> None:
    """A template of the user's takes the place of ours, and has what ours has."""
    loader = jinja2.DictLoader(
        {
            "sse_routes/client.js.j2": "// {{ routes | tojson }} {{ prefix }}",
            "sse_routes/script.html.j2": '<script defer src="{{ url }}"></script>',
            "unrelated": "",
        }
    )
    files = render(ROUTES[:1], prefix="/_sse", loader=loader)
    assert '// {"room": ["/rooms/{room}", "GET", 15000, true, 0]} /_sse' == files.module
    assert render(ROUTES[:1], prefix="/_sse").classic == files.classic
    assert '<script defer src="/&lt;"></script>' == script_tag("/<", loader=loader)


def test_settings_of_the_application() -> None:
    """Delimiters and escaping of the application's environment change nothing here."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({}), variable_start_string="[[", autoescape=True
    )
    assert render(ROUTES, prefix="/_sse") == render(
        ROUTES, prefix="/_sse", loader=environment.loader
    )
