"""A process that does what it is told in lines of JSON: ``worker module:function {}``.

The function is an async context manager; what it yields has the methods that are
called. The first answer says which processes serve: this one, unless what is yielded
has ``pids``. It ends when its input does.

Law: the loop is asyncio's own, or the one that the option ``loop`` names.
"""

from __future__ import annotations

__all__ = ("main",)

import asyncio
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


async def work(target: str, options: dict[str, Any]) -> None:
    """Serve *target* until the input ends."""
    module, _, name = target.partition(":")
    make = getattr(importlib.import_module(module), name)
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with make(**options) as actor:
        _answer({"result": getattr(actor, "pids", [os.getpid()])})
        while line := await reader.readline():
            method, arguments = json.loads(line)
            try:
                result = await getattr(actor, method)(**arguments)
            except Exception:  # noqa: BLE001 -- whoever has asked is told
                _answer({"error": traceback.format_exc()})
            else:
                _answer({"result": result})


def _answer(answer: Any) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _loop(module: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a loop of *module*; none for asyncio's own."""
    if not module:
        return None
    made: Callable[[], asyncio.AbstractEventLoop]
    made = importlib.import_module(module).new_event_loop
    return made


def main() -> None:
    """Run what the command line says."""
    options = json.loads(sys.argv[2])
    try:
        with asyncio.Runner(loop_factory=_loop(options.pop("loop", ""))) as runner:
            runner.run(work(sys.argv[1], options))
    except Exception:  # noqa: BLE001 -- whoever waits for an answer is told
        _answer({"error": traceback.format_exc()})
        sys.exit(1)


if __name__ == "__main__":
    main()
