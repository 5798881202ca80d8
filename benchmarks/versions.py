"""What the numbers are of: the machine, and the version of everything that ran.

Law: what is not there is not named.
"""

from __future__ import annotations

__all__ = ("versions",)

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .scene import ROOT

PACKAGES: Final = (
    "aiohttp-sse-routes",
    "aiohttp",
    "aiohttp-sse",
    "msgspec",
    "redis",
    "uvloop",
    "uvicorn",
    "httptools",
    "starlette",
    "sse-starlette",
    "fastapi",
    "litestar",
    "httpx-sse",
    "sseclient-py",
    "aiohttp-sse-client",
)

PROGRAMS: Final = {
    "redis-server": ("redis-server", "--version"),
    "node": ("node", "--version"),
    "nginx": ("nginx", "-v"),
    "nchan": ("dpkg-query", "--show", "libnginx-mod-nchan"),
}


def versions() -> dict[str, str]:
    """Return the version of each by its name."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        **dict(_packages()),
        **dict(_programs()),
    }


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)
    path = ROOT / "benchmarks/node/node_modules/better-sse/package.json"
    with contextlib.suppress(OSError):
        yield "better-sse", json.loads(path.read_text("utf-8"))["version"]


def _programs() -> Iterator[tuple[str, str]]:
    for name, words in PROGRAMS.items():
        if shutil.which(words[0]):
            ran = subprocess.run(words, capture_output=True, text=True, check=False)
            # nginx says it on its standard error.
            if found := re.search(r"\d+(\.\d+)+", ran.stdout or ran.stderr):
                yield name, found[0]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{os.cpu_count()} x {line.partition(':')[2].strip()}"
    return f"{os.cpu_count()} x {platform.machine()}"
