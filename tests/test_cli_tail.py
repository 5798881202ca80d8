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
from .scripted import Exchange, answer, scripted, stream

ROOT = Path(__file__).parents[1]


async def start(*arguments: object) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aiohttp_sse_routes",
        "tail",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


async def test_json_of_some_events() -> None:
    """With ``--json`` a line is an event; ``--event`` leaves others out."""
    text = 'event: a\njson\ndata: {"n": 1}\n\ndata: b\n\nevent: a\ndata: \x1b[2J\n\n'
    async with scripted(stream(text), answer(204)) as server:
        process = await start(server.base, "--json", "--event", "a")
        out, _ = await process.communicate()
    assert b"\x1b" not in out
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "a", "id": None, "data": {"n": 1}},
        {"type": "a", "id": None, "data": "\x1b[2J"},
    ]


async def test_a_stream_cannot_steer_the_terminal() -> None:
    """Control characters are replaced; the colours are our own."""
    async with scripted(stream("data: \x1b[2J\n\n"), answer(204)) as server:
        process = await start(server.base, "--colour")
        out, _ = await process.communicate()
    assert out.decode() == "\x1b[1;36mmessage\x1b[0m �[2J\n"


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


async def test_a_closed_pipe() -> None:
    """It ends without a word when nobody reads what it writes."""
    async with scripted(numbered(1, 100_000, "hold")) as server:
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m aiohttp_sse_routes tail {server.base} | head -n 1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        out, err = await process.communicate()
    assert (out, err) == (b"message 1\n", b"")


async def test_no_stream() -> None:
    """A refusal is said, and is the exit status."""
    async with scripted(answer(404)) as server:
        process = await start(server.base)
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"status 404" in err


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be is refused with status 2."""
    assert main(["tail", "ftp://h/"]) == 2
    assert "http://" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tail", "http://h/", "-H", "nothing"])
