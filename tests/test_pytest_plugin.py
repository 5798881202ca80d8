"""The pytest plugin, as those have it who have installed the package: by entry point.

Law: pytest runs in a process of its own, over files written for the purpose, with
warnings as errors and no configuration but what a test says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.timeout(60)

APP = """
import asyncio
import pytest
from aiohttp import web
from aiohttp_sse_routes import SSERouteTableDef, get_sse, setup

def create_app(clock=None):
    routes = SSERouteTableDef()

    @routes.sse_route("/numbers")
    async def numbers(request):
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.001)

    app = web.Application()
    setup(app, routes, clock=clock)
    return app
"""

ALL = """
async def test_all(sse_clock, sse_stream, sse_proxy, sse_nothing_left):
    app = create_app(sse_clock)
    stream = await sse_stream(app, "/numbers")
    assert [0, 1] == [event.value for event in await stream.collect(2)]
    proxy = await sse_proxy(app)
    other = await sse_stream(proxy, "/numbers", headers={"X-It": "is"})
    assert 0 == (await other.next()).value
    assert 2 == get_sse(app).connections
    proxy.cut()
    await stream.drop()
    await sse_clock.advance(16)
    assert not get_sse(app).detached
"""

LEAKS = """
import pytest_asyncio

left = []

@pytest.fixture(autouse=True)
def first():
    pass

@pytest_asyncio.fixture
async def client(aiohttp_client):
    return await aiohttp_client(create_app())

async def test_clean(aiohttp_client, client, sse_nothing_left):
    assert 200 == (await client.get("/_sse/client.js")).status

@pytest.mark.usefixtures("sse_nothing_left")
async def test_forgotten(client):
    async def endless():
        yield 1
    generator = endless()
    await anext(generator)
    left.append(generator)
    left.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

class TestInAClass:
    async def test_clean(self, client, sse_nothing_left, sse_stream):
        stream = await sse_stream(client, "/numbers")
        await stream.next()
"""


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    """Run pytest over a file with *text*."""
    pytester.makepyfile(text)
    if "no:asyncio" not in arguments:
        # It warns where it is not told.
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    fixed = ("-p", "no:cacheprovider", "-p", "no:cov", "-W", "error")
    return pytester.runpytest_subprocess(*fixed, *arguments)


def test_it_is_installed_by_its_entry_point() -> None:
    """Pytest finds it by itself, under a name by which it can be switched off."""
    [entry] = entry_points(group="pytest11", name="aiohttp_sse_routes")
    assert "pytest_aiohttp_sse_routes" == entry.value


def test_it_costs_nothing() -> None:
    """Its import brings neither this package nor aiohttp into a test run."""
    program = (
        "import json, sys, pytest, pytest_asyncio; before = {*sys.modules}\n"
        "import pytest_aiohttp_sse_routes\n"
        "print(json.dumps(sorted({*sys.modules} - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ["pytest_aiohttp_sse_routes"] == json.loads(done.stdout)


STRICT = "pytestmark = pytest.mark.asyncio\n"


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_fixtures(pytester: pytest.Pytester, mode: str) -> None:
    """They work in both modes of pytest-asyncio, in one without pytest-aiohttp."""
    strict = mode == "strict"
    mark, without = (STRICT, []) if strict else ("", ["-p", "no:aiohttp"])
    options = [f"--asyncio-mode={mode}", *without]
    result = run(pytester, APP + mark + ALL, *options)
    result.assert_outcomes(passed=1)


def test_what_is_left_fails_the_test(pytester: pytest.Pytester) -> None:
    """It looks when the application has ended, wherever it stands among arguments."""
    result = run(pytester, APP + STRICT + LEAKS)
    # One passes, and then its teardown fails.
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*ERROR at teardown of test_forgotten*",
            "*LeftBehind: 2 left behind:*",
            "*task 'forgotten' (Event.wait): *locks.py:* in Event.wait",
            "*async generator *endless, never closed: *.py:* in *endless",
        ]
    )


WIDER = """
import pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def background():
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()

@pytest.fixture(scope="module")
def folder():
    return 1

async def test_it(sse_nothing_left, folder, background, sse_stream):
    stream = await sse_stream(create_app(), "/numbers")
    await stream.next()
"""


def test_what_a_wider_fixture_has_begun_is_no_tests(pytester: pytest.Pytester) -> None:
    """A task of a session is there before, whatever the order of the arguments."""
    result = run(
        pytester,
        APP + WIDER,
        "--asyncio-mode=auto",
        *("-o", "asyncio_default_fixture_loop_scope=session"),
        *("-o", "asyncio_default_test_loop_scope=session"),
    )
    result.assert_outcomes(passed=1)


ALONE = """
import pytest

def test_clock(sse_clock):
    assert "SettableClock" in repr(sse_clock)

@pytest.mark.parametrize("name", ["sse_stream", "sse_proxy", "sse_nothing_left"])
def test_async(request, name):
    request.getfixturevalue(name)

def test_nothing():
    pass
"""


@pytest.mark.parametrize("installed", [True, False], ids=["off", "missing"])
def test_without_an_event_loop(pytester: pytest.Pytester, installed: bool) -> None:
    """The clock needs none; the others name the fix, and nobody else is bothered."""
    if not installed:
        folder = pytester.mkdir("fakes")
        (folder / "pytest_asyncio.py").write_text("raise ImportError")
        pytester.syspathinsert(folder)
    result = run(*(pytester, ALONE, "-p", "no:asyncio", "-p", "no:aiohttp"))
    result.assert_outcomes(passed=2, errors=0, failed=3)
    assert 3 == result.stdout.lines.count(
        "sse_stream, sse_proxy and sse_nothing_left need an event loop: "
        "pip install pytest-aiohttp (or pytest-asyncio)"
    )


def test_its_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    """``pytest --fixtures`` tells what each is for; what is not for users is hidden."""
    result = run(pytester, ALONE, "--fixtures")
    text = result.stdout.str()
    for name in ("sse_clock", "sse_nothing_left", "sse_proxy", "sse_stream"):
        assert f"{name} -- " in text
    assert "_sse_" not in text.replace("_sse_routes", "")
