"""The documentation is true: its code runs, and nothing public is left out."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

import aiohttp_sse_routes
from aiohttp_sse_routes import SSE_KEY, client, setup, testing
from aiohttp_sse_routes.http.client_files import ClientRoute, render
from aiohttp_sse_routes.http.forms import MEANINGLESS
from aiohttp_sse_routes.http.link import CloseReason
from aiohttp_sse_routes.http.script import EndReason
from aiohttp_sse_routes.settings import DEFAULTABLE, RouteSettings
from aiohttp_sse_routes.streams.reader import GapReason

from .helpers import Served
from .pages import DOCS, ROOT, Page, all_pages, blocks_of
from .programs import default_table

REFERENCE = DOCS / "reference"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="the client's reference is checked with node"
)


@pytest.fixture
def _default_table() -> Iterator[None]:
    with default_table():
        yield


# -- code ------------------------------------------------------------------------------


def _with_python() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path in all_pages()
        if any(block.language == "python" for block in blocks_of(path))
    ]


@pytest.mark.usefixtures("_default_table")
@pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
@pytest.mark.parametrize("name", _with_python())
async def test_the_code_of_each_page_runs(
    serve: Callable[..., Awaitable[Served]],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The Python of a page runs in order, and its applications start and end."""
    monkeypatch.chdir(tmp_path)
    # One page says how to be told less: it is undone at the end.
    caplog.set_level(logging.NOTSET, "aiohttp_sse_routes")
    # Nobody is there: an application starts all the same, and waits.
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    page = Page(ROOT / name, serve)
    await page.run()
    for served in await page.all_served():
        if SSE_KEY in served.app:
            status, script = await served.get("/_sse/client.js")
            assert status == 200
            assert b"createSse" in script


def test_programs_are_shown_from_their_files() -> None:
    """Each example is in the documentation, included from the file that is tested."""
    text = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            assert f"{{literalinclude}} ../../examples/{path.name}\n" in text


@needs_node
def test_the_scripts_of_each_page_are_javascript() -> None:
    """Each block of JavaScript is a module without a mistake of syntax."""
    blocks = [
        (f"{path.relative_to(ROOT)}:{block.line}", block.text)
        for path in all_pages()
        for block in blocks_of(path)
        if block.language == "js"
    ]
    assert len(blocks) > 10
    subprocess.run(
        ["node", "--no-warnings", "--experimental-vm-modules", "-e", _PARSE],
        input=json.dumps(blocks).encode(),
        check=True,
    )


_PARSE = """
const { SourceTextModule } = require("node:vm");
const blocks = JSON.parse(require("node:fs").readFileSync(0));
for (const [identifier, text] of blocks) new SourceTextModule(text, { identifier });
"""


def test_the_links_of_the_readme_lead_somewhere() -> None:
    """The README is no page of the documentation, and is not checked with it."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


# -- completeness ----------------------------------------------------------------------


def test_every_public_name_is_in_the_reference() -> None:
    """Each name of the package's face is documented, and no other is."""
    documented: set[str] = set()
    for page in ("python.md", "imperative.md", "stores.md"):
        text = (REFERENCE / page).read_text("utf-8")
        documented |= set(
            re.findall(
                r"^\.\. (?:auto|py:)\w+:: aiohttp_sse_routes\.(\w+)(?=\(|$)",
                text,
                re.MULTILINE,
            )
        )
    assert documented == set(aiohttp_sse_routes.__all__)


def test_every_name_for_tests_is_in_the_reference() -> None:
    """Each name of `aiohttp_sse_routes.testing` is documented."""
    text = (REFERENCE / "testing.md").read_text("utf-8")
    documented = re.findall(r"aiohttp_sse_routes\.testing\.(\w+)", text)
    assert sorted(documented) == sorted(testing.__all__)


def test_every_name_of_the_python_client_is_in_the_reference() -> None:
    """Each name of `aiohttp_sse_routes.client` is documented."""
    text = (REFERENCE / "python-client.md").read_text("utf-8")
    documented = re.findall(r"^\.\. auto.*client\.(\w+)", text, re.MULTILINE)
    assert sorted(documented) == sorted(client.__all__)


def test_every_route_option_is_in_the_reference() -> None:
    """Each option is there with its default, what it is for, and if setup takes it."""
    rows = _table("options.md", "## Options of a route")
    fields = {field.name: field for field in dataclasses.fields(RouteSettings)}
    assert [row[0] for row in rows] == [f"`{name}`" for name in fields]
    for name, default, usable, meaning in rows:
        option = name.strip("`")
        value = fields[option].default
        assert default == f"`{_shown(value)}`", option
        assert ("*default*" in usable) == (option in DEFAULTABLE), option
        forms = set(usable.replace(", *default*", "").split(", "))
        if option != "shared":
            everywhere = "all" in forms
            assert forms <= {"private", "shared", "channels", "all"}, option
            private = option not in MEANINGLESS["generator"]
            shared = option not in (*MEANINGLESS["shared"], "methods")
            assert private == (everywhere or "private" in forms), option
            assert shared == (everywhere or "shared" in forms), option
            if option in MEANINGLESS["coroutine"]:
                assert not forms & {"all", "channels"}, option
        assert meaning.endswith((".", ".)")), option


def test_every_argument_of_setup_is_in_the_reference() -> None:
    """Each argument of `setup` is there with its default, in the order it has there."""
    rows = _table("options.md", "## Arguments of `setup`")
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(setup).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert [row[0] for row in rows] == [f"`{name}`" for name in arguments]
    for name, default, _ in rows:
        value = arguments[name.strip("`")]
        if value is inspect.Parameter.empty:
            assert default == "", name
        else:
            assert default == f"`{_shown(value)}`", name


def test_every_log_record_is_in_the_reference() -> None:
    """The kinds of records, and their fields, are those of the code."""
    kinds: set[tuple[str, str]] = set()
    fields: set[str] = set()
    for path in (ROOT / "aiohttp_sse_routes").rglob("*.py"):
        text = path.read_text("utf-8")
        kinds |= set(re.findall(r'"sse_event": "(\w+)"|_log\([\w.]+, "(\w+)"', text))
        fields |= set(re.findall(r'"(sse_\w+)":', text)) - {"sse_event"}
    rows = _table("logging.md", "# Log records")
    assert {row[0].strip("`") for row in rows} == {one or other for one, other in kinds}
    assert {
        name for row in rows for name in re.findall(r"`(sse_\w+)`", row[3])
    } == fields


def test_every_reason_is_in_the_reference() -> None:
    """The reasons of gaps, ends and closes are those of the code."""
    for page, heading, reasons in (
        ("wire.md", "### Reasons of a gap", GapReason),
        ("wire.md", "### Reasons of an end", EndReason),
        ("logging.md", "## Why a connection was closed", CloseReason),
    ):
        documented = {row[0].strip("`") for row in _table(page, heading)}
        # Who is over a limit has an answer of its own, and no connection to be closed.
        assert documented == set(get_args(reasons))


@needs_node
def test_every_name_of_the_client_is_in_the_reference(tmp_path: Path) -> None:
    """What a stream, an event, a gap, a state and an error have is documented."""
    route = ClientRoute(name="clock", path="/clock", methods=("GET",), heartbeat=15)
    (tmp_path / "client.mjs").write_text(render([route], prefix="/_sse").module)
    (tmp_path / "names.mjs").write_text(_NAMES, "utf-8")
    done = subprocess.run(
        ["node", "names.mjs"], cwd=tmp_path, check=True, stdout=subprocess.PIPE
    )
    in_code = json.loads(done.stdout)
    in_docs = {
        kind: sorted(
            name
            for row in _table("javascript.md", heading)
            for name in re.findall(r"`(?:sse\.)?(\w+)", row[0])
            if name not in ("for", "await")
        )
        for kind, heading in (
            ("stream", "## A stream"),
            ("event", "## An event"),
            ("gap", "## A gap"),
            ("state", "## State"),
            ("error", "## `SseError`"),
        )
    }
    assert in_code == in_docs


@needs_node
def test_every_option_of_the_client_is_in_the_reference() -> None:
    """The options and the parts of `backoff` are those of the client's own types."""
    core = (ROOT / "templates" / "core.js").read_text("utf-8")
    for kind, heading in (("Options", "## Options"), ("Backoff", "`backoff` has")):
        match = re.search(rf"@typedef {{object}} {kind}\b(.*?)\n \*\n", core, re.DOTALL)
        assert match is not None
        declared = re.findall(r"@property (?:\{.*?\}) \[?(\w+)", match[1], re.DOTALL)
        rows = _table("javascript.md", heading)
        assert [row[0].strip("`") for row in rows] == declared


_NAMES = """
import { createSse, SseError } from "./client.mjs";

const text = [
  "event: sse-hello\\ndata: {}\\n\\n",
  'event: sse-gap\\ndata: {"reason": "slow"}\\n\\n',
  "id: 1\\ndata: hello\\n\\n",
].join("");
const headers = { "Content-Type": "text/event-stream" };
const fetch = async () => new Response(text, { headers });
const sse = createSse("http://localhost", { fetch });
const stream = sse.clock();
const names = (value) => Object.keys(value).sort();
const gap = new Promise((resolve) => stream.onGap(resolve));
const event = await stream.next("message");
const error = new SseError("http", "");
console.log(JSON.stringify({
  stream: names(stream),
  event: names(event),
  gap: names(await gap),
  state: names(stream.info),
  error: names(error).filter((name) => name !== "name"),
}));
sse.closeAll();
"""


def _table(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table behind *heading*, without its head."""
    text = (REFERENCE / page).read_text("utf-8")
    assert f"\n{heading}" in f"\n{text}", heading
    _, _, rest = f"\n{text}".partition(f"\n{heading}")
    table = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert table is not None, heading
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[0].splitlines()
    ]
    return rows[2:]


def _shown(value: object) -> str:
    """Return *value* as the documentation writes it."""
    return (
        json.dumps(value) if isinstance(value, str) else repr(value).replace("'", '"')
    )
