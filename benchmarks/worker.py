"""A process that does what it is told in lines of JSON: ``worker module:function {}``.

The function is an async context manager; what it yields has the methods that are
called. It ends when its input does.
"""

from __future__ import annotations

__all__ = ("main",)

import asyncio
import importlib
import json
import sys
import traceback
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
        _answer({"result": None})
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


def main() -> None:
    """Run what the command line says."""
    try:
        asyncio.run(work(sys.argv[1], json.loads(sys.argv[2])))
    except Exception:  # noqa: BLE001 -- whoever waits for an answer is told
        _answer({"error": traceback.format_exc()})
        sys.exit(1)


if __name__ == "__main__":
    main()
