"""``python -m aiohttp_sse_routes tail``: a stream in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from aiohttp_sse_routes.__main__ import main

from .helpers import until
from .programs import interruptible
from .scripted import Exchange, answer, scripted, stream

ROOT = Path(__file__).parents[1]


async def start(
    *arguments: object, stdout: int = asyncio.subprocess.PIPE, **environment: str
) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aiohttp_sse_routes",
        "tail",
        *map(str, arguments),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=interruptible,
    )


def numbered(first: int, last: int, end: str = "eof") -> Exchange:
    """Return a stream of numbered events."""
    texts = [f"id: {n}\ndata: {n}\n\n" for n in range(first, last + 1)]
    return stream("retry: 100\n", *texts, end=end)


async def test_lines() -> None:
    """Events are lines, over a break of the connection, and the end is the end."""
    async with scripted(numbered(1, 2), numbered(3, 3), answer(204)) as server:
        process = await start(server.base, "-H", "X-Mine: 1", "--since", "0")
        out, err = await process.communicate()
    assert out.decode().splitlines() == ["message 1", "message 2", "message 3"]
    assert b"eof; again in" in err
    assert process.returncode == 0
    assert server.header(0, "X-Mine") == "1"
    assert [server.header(n, "Last-Event-ID") for n in range(3)] == ["0", "2", "3"]


async def run(*arguments: str) -> int:
    """Run the command in a thread of this process; return its exit status."""
    return await asyncio.to_thread(main, ["tail", *arguments])


async def test_json_of_some_events(capfd: pytest.CaptureFixture[str]) -> None:
    """With ``--json`` a line is an event; ``--event`` leaves others out."""
    text = 'event: a\njson\ndata: {"n": 1}\n\ndata: b\n\nevent: a\ndata: \x1b[2J\n\n'
    async with scripted(stream(text), answer(204)) as server:
        assert await run(server.base, "--json", "--event", "a") == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "a", "id": None, "data": {"n": 1}},
        {"type": "a", "id": None, "data": "\x1b[2J"},
    ]


async def test_a_stream_cannot_steer_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Control characters are replaced; the colours are our own."""
    async with scripted(stream("data: \x1b[2J\n\n"), answer(204)) as server:
        assert await run(server.base, "--colour") == 0
    assert capfd.readouterr().out == "\x1b[1;36mmessage\x1b[0m �[2J\n"


async def test_resumed_after_it_was_killed(tmp_path: Path) -> None:
    """With ``--state`` the next run goes on behind what this one has written."""
    state = tmp_path / "state"
    async with scripted(numbered(1, 3, "hold"), answer(204)) as server:
        process = await start(server.base, "--state", state)
        await until(lambda: state.exists() and state.read_text() == "3", timeout=15)
        process.kill()
        await process.communicate()
        process = await start(server.base, "--state", state)
        await process.communicate()
    assert server.header(1, "Last-Event-ID") == "3"


async def test_interrupted() -> None:
    """Ctrl-C ends it without a traceback."""
    async with scripted(numbered(1, 1, "hold")) as server:
        process = await start(server.base)
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("count", [1, 100_000], ids=["idle", "busy"])
async def test_a_closed_pipe(count: int) -> None:
    """It ends without a word when nobody reads any more, also while nothing comes."""
    async with scripted(numbered(1, count, "hold")) as server:
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m aiohttp_sse_routes tail {server.base} | head -n 1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        out, err = await process.communicate()
    assert (out, err) == (b"message 1\n", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
async def test_colours_are_for_terminals() -> None:
    """A terminal gets colours, unless it is told not to; a pipe gets none."""

    async def shown(**environment: str) -> bytes:
        ours, theirs = os.openpty()
        async with scripted(stream("data: x\n\n"), answer(404)) as server:
            process = await start(server.base, stdout=theirs, **environment)
            assert await process.wait() == 1
        seen = os.read(ours, 1000)
        os.close(ours)
        os.close(theirs)
        return seen

    coloured, plain = await asyncio.gather(shown(NO_COLOR=""), shown(NO_COLOR="1"))
    assert coloured == b"\x1b[1;36mmessage\x1b[0m x\r\n"
    assert plain == b"message x\r\n"


async def test_data_of_several_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """They are set in, so that none of them looks like an event; nor can text turn."""
    text = "event: a\ndata: 1\ndata: message 2\n\ndata: \u202eevil\n\n"
    async with scripted(stream(text), answer(204)) as server:
        assert await run(server.base) == 0
    assert capfd.readouterr().out == "a 1\n  message 2\nmessage �evil\n"


@pytest.mark.parametrize("data", ["{", "NaN", "[" * 100_000, "9" * 5000])
async def test_json_that_is_none(data: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Data that are not what they are said to be are written as they came."""
    async with scripted(stream(f"json\ndata: {data}\n\n"), answer(204)) as server:
        assert await run(server.base, "--json") == 0
    assert json.loads(capfd.readouterr().out)["data"] == data


async def test_a_place_that_cannot_be_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be written, or is no place, is told by its name."""
    odd = tmp_path / "odd"
    odd.write_bytes(b"\xff")
    async with scripted(*[stream("id: 1\ndata: x\n\n", end="hold")] * 2) as server:
        for state in (tmp_path / "nowhere" / "state", tmp_path, odd):
            assert await run(server.base, "--state", str(state)) == 2
            assert str(state) in capfd.readouterr().err


async def test_a_place_that_was_edited(tmp_path: Path) -> None:
    """An editor's line end is not part of the place, and ``--since`` goes first."""
    state = tmp_path / "state"
    state.write_text("7\n")
    async with scripted(answer(404), answer(404)) as server:
        assert await run(server.base, "--state", str(state)) == 1
        assert await run(server.base, "--state", str(state), "--since", "3") == 1
    assert [server.header(n, "Last-Event-ID") for n in (0, 1)] == ["7", "3"]


async def test_no_stream(capfd: pytest.CaptureFixture[str]) -> None:
    """A refusal is said, and is the exit status."""
    async with scripted(answer(404)) as server:
        assert await run(server.base) == 1
    assert "status 404" in capfd.readouterr().err


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be is refused with status 2."""
    assert main(["tail", "ftp://h/"]) == 2
    assert "http://" in capsys.readouterr().err
    for header in ("nothing", "X Y: 1", ": 1", "X: 1\r\nY: 2"):
        with pytest.raises(SystemExit):
            main(["tail", "http://h/", "-H", header])
