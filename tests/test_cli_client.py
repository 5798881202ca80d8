"""``python -m aiohttp_sse_routes client``: the client's files, for who bundles them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_sse_routes.__main__ import main

from .helpers import Served

Serve = Callable[[web.Application], Awaitable[Served]]

PROGRAM = """
from aiohttp import web
from aiohttp_sse_routes import SSERouteTableDef, setup

table = SSERouteTableDef()

@table.sse_route("/rooms/{room}")
async def room(request):
    yield "hello"

app = web.Application()
setup(app, table, schema=True)

class Place:
    app = app

bare = web.Application()
nothing = 3

def make():
    return app

async def make_async():
    return app

def make_for_aiohttp(argv):
    assert argv == []
    return app
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a program, which is the current one."""
    (tmp_path / "program_of_cli.py").write_text(PROGRAM)
    (tmp_path / "misses_something.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("program_of_cli", None)


def client(name: str, *arguments: str) -> int:
    """Run the command on a name of the program."""
    return main(["client", f"program_of_cli:{name}", "--out", "out/js", *arguments])


async def test_what_is_written_is_what_is_served(serve: Serve, folder: Path) -> None:
    """Each file is what the application serves under its name, byte for byte.

    But for the comment by which bundlers leave the import of the hub alone: for who is
    served it would be 40 bytes for nothing.
    """
    word = b"/* webpackIgnore: true */ /* @vite-ignore */ "
    assert 0 == client("app")
    names = {path.name for path in (folder / "out/js").iterdir()}
    assert {"client.js", "client.global.js", "client.d.ts", "openapi.json"} <= names
    served = await serve(sys.modules["program_of_cli"].app)
    for name in names:
        status, body = await served.get(f"/_sse/{name}")
        written = (folder / "out/js" / name).read_bytes()
        imports = int(name in {"client.js", "client.global.js"})
        assert imports == written.count(b"import(" + word), name
        assert (200, written.replace(word, b"")) == (status, body), name


@pytest.mark.parametrize(
    "name", ["app", "Place.app", "make", "make_async", "make_for_aiohttp"]
)
def test_applications_and_functions(folder: Path, name: str) -> None:
    """The application is named, or a function that returns it, awaited if need be."""
    assert 0 == client(name)
    assert "createSse" in (folder / "out/js/client.js").read_text("utf-8")


@pytest.mark.timeout(90)
def test_in_a_process_of_its_own(folder: Path) -> None:
    """As it is called: the module is found in the current folder."""
    arguments = ["client", "program_of_cli:app", "--out", "out"]

    def run(*more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "aiohttp_sse_routes", *arguments, *more],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    status, text, errors = run()
    assert (0, "") == (status, errors)
    assert f"wrote {Path('out/client.d.ts')}\n" in text
    assert (0, "", "") == run("--check")
    (folder / "out/client.d.ts").unlink()
    assert 1 == run("--check")[0]


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--check`` is silent where nothing differs, and else says what does."""
    assert 1 == client("app", "--check")
    assert "client.js is missing" in capsys.readouterr().out
    assert not (folder / "out").exists()
    client("app")
    capsys.readouterr()
    assert 0 == client("app", "--check")
    assert "" == capsys.readouterr().out
    types = folder / "out/js/client.d.ts"
    changed = types.read_text("utf-8").replace("room: Param", "room: string")
    types.write_text(changed, "utf-8")
    assert 1 == client("app", "--check")
    lines = capsys.readouterr().out.splitlines()
    assert f"--- {Path('out/js/client.d.ts')}" in lines
    assert "-    params: { room: string };" in lines
    assert "+    params: { room: Param };" in lines
    assert not any("client.js" in line for line in lines)
    assert changed == types.read_text("utf-8")


def test_check_of_what_is_minified(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference in a file of long lines is told in a few short ones."""
    client("app")
    script = folder / "out/js/client.js"
    script.write_text(script.read_text("utf-8").replace("a", "b"), "utf-8")
    capsys.readouterr()
    assert 1 == client("app", "--check")
    text = capsys.readouterr().out
    assert str(Path("out/js/client.js")) in text
    assert len(text) < 10_000


def test_what_has_not_changed_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is as it would be written keeps its time; the others are written."""
    client("app")
    files = sorted((folder / "out/js").iterdir())
    files[0].write_text("older")
    times = {path: path.stat().st_mtime_ns for path in files}
    capsys.readouterr()
    assert 0 == client("app")
    assert f"wrote {Path('out/js') / files[0].name}\n" == capsys.readouterr().out
    assert "older" != files[0].read_text("utf-8")
    for path in files[1:]:
        assert times[path] == path.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("program_of_cli", "name the application as module:app"),
        (":app", "name the application as module:app"),
        ("no_such_module:app", "there is no module 'no_such_module'"),
        ("no.such.module:app", "there is no module 'no'"),
        ("program_of_cli:other", "there is no 'other' in program_of_cli"),
        ("program_of_cli:nothing", "this is int, and no application"),
        ("program_of_cli:bare", "setup(app) was not called"),
    ],
)
def test_wrong_names(
    name: str, words: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """A name that leads to no application is told, and nothing is written."""
    assert 2 == main(["client", name, "--out", "out"])
    assert words in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_module_that_misses_another() -> None:
    """What fails in the application's own module is shown as it is."""
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        main(["client", "misses_something:app", "--out", "out"])
