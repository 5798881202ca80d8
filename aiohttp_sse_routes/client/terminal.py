"""``python -m aiohttp_sse_routes tail``: a stream, line by line, in a terminal.

Law: what a server sends cannot steer the terminal. An event is behind the place that is
kept only after it was written.
"""

from __future__ import annotations

__all__ = ("tail",)

import asyncio
import io
import json
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, ReplayGap, SSERoutesError
from .connecting import connect
from .event import Event, StateInfo
from .interruptible import Interruptible
from .stream import Stream

# Control characters, and those that turn the direction of what stands around them.
_STEERING: Final = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1;36m", "\x1b[0m"


def tail(
    url: str,
    *,
    as_json: bool,
    names: Collection[str],
    since: str | None,
    headers: Mapping[str, str],
    state: Path | None,
    colour: bool | None,
) -> int:
    """Write a stream's events until it ends; return the exit status.

    Args:
        url: The stream's.
        as_json: Whether each event is written as one line of JSON.
        names: The events that are written; all if there are none.
        since: The last event ID to begin with; None for what *state* has.
        headers: Sent with each request.
        state: A file that keeps the place between two runs.
        colour: Whether to colour; None where a terminal wants it.
    """
    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal's encoding lacks is no reason to end.
        sys.stdout.reconfigure(errors="replace")
    try:
        if since is None:
            since = _kept(state)
        stream = connect(
            url,
            headers=headers,
            last_event_id=since,
            ack="manual",
            on_state=_tell,
        )
        asyncio.run(_follow(stream, as_json, names, state, colour))
    except ConfigurationError as error:
        _say(str(error))
        return 2
    except SSERoutesError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes once more at its end, and nobody is there to read that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _say(str(error))
        return 2
    except UnicodeDecodeError:
        _say(f"--state: {state} is no file that has kept a place")
        return 2
    return 0


async def _follow(
    stream: Stream,
    as_json: bool,
    names: Collection[str],
    state: Path | None,
    colour: bool,
) -> None:
    work = Interruptible()
    _when_nobody_reads(work.interrupt)
    await work.run(_write(stream, as_json, names, state, colour))


async def _write(
    stream: Stream,
    as_json: bool,
    names: Collection[str],
    state: Path | None,
    colour: bool,
) -> None:
    async with stream:
        while True:
            try:
                async for event in stream:
                    if not names or event.type in names:
                        line = _json(event) if as_json else _text(event, colour)
                        sys.stdout.write(line)
                        sys.stdout.flush()
                    stream.ack(event)
                    _keep(state, stream.last_event_id)
                return
            except ReplayGap as gap:
                _say(f"events are lost: {gap.reason}")


def _when_nobody_reads(told: Callable[[], object]) -> None:
    """Call *told* when the pipe is closed, not only when there is more to write."""
    try:
        pipe = sys.stdout.fileno()
    except OSError:
        return  # it is something in this process
    if sys.platform == "win32" or not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        return
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.remove_reader(pipe)
        poll = select.poll()
        poll.register(pipe, 0)
        if poll.poll(0):
            told()

    loop.add_reader(pipe, look)


def _json(event: Event) -> str:
    fields = {"type": event.type, "id": event.id, "data": event.raw}
    # ASCII, so that no byte of it steers a terminal either.
    if event.is_json:
        try:
            decoded = {**fields, "data": event.json()}
            return json.dumps(decoded, allow_nan=False) + "\n"
        except (ValueError, RecursionError):
            pass  # it is not what it was said to be
    return json.dumps(fields) + "\n"


def _text(event: Event, colour: bool) -> str:
    type_ = _STEERING.sub("�", event.type)
    # Set in, so that no line of it looks like an event.
    indent = " " * (len(type_) + 1)
    data = _STEERING.sub("�", event.raw).replace("\n", f"\n{indent}")
    if colour:
        return f"{_BOLD}{type_}{_PLAIN} {data}\n"
    return f"{type_} {data}\n"


def _tell(info: StateInfo) -> None:
    if info.state == "waiting" and info.delay is not None:
        why = f": {info.error}" if info.error else ""
        _say(f"{info.reason}{why}; again in {info.delay:.1f} s")


def _say(text: str) -> None:
    clean = _STEERING.sub("�", text)
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        clean = f"{_DIM}{clean}{_PLAIN}"
    sys.stderr.write(clean + "\n")


def _kept(state: Path | None) -> str:
    if state is None or not state.exists():
        return ""
    return state.read_text("utf-8").rstrip("\r\n")


def _keep(state: Path | None, place: str) -> None:
    """Replace the file as a whole, so that one who is killed leaves the old or new."""
    if state is not None:
        new = state.with_name(state.name + ".new")
        new.write_text(place, "utf-8")
        new.replace(state)
