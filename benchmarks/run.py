"""Runs the benchmarks: ``python -m benchmarks.run [SCENE...]``; ``make bench`` all.

Law: each round measures every peer of a scene once, in turn, each second round the
other way round; what is told are medians, and ratios of measures of the same round.
"""

from __future__ import annotations

__all__ = ("main",)

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import channels, stores
from .processes import Redis
from .scene import Peer, Place, Scene, Sizes, lacks

SCENES = {scene.name: scene for scene in (*channels.SCENES, *stores.SCENES)}

DECODER = "decoder"
"""A program of its own, which has its own peers and its own options."""

PACKAGES = ("aiohttp-sse-routes", "aiohttp", "aiohttp-sse", "msgspec", "redis")

Measures = dict[str, list[Mapping[str, float]]]
"""What was measured, by peer: one mapping a round."""


def versions() -> dict[str, str]:
    """Return what the numbers are of."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
    }
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if binary := shutil.which("redis-server"):
        said = subprocess.check_output([binary, "--version"], text=True)
        found["redis-server"] = said.partition("v=")[2].partition(" ")[0]
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{os.cpu_count()} x {line.partition(':')[2].strip()}"
    return f"{os.cpu_count()} x {platform.machine()}"


@contextlib.contextmanager
def place(peer: Peer) -> Iterator[Place]:
    """Have a place to measure *peer* in."""
    with tempfile.TemporaryDirectory(prefix="sse-bench-") as name:
        folder = Path(name)
        if peer.store != "redis":
            yield Place(folder)
            return
        with Redis(folder) as redis:
            yield Place(folder, redis.url, redis.pid)


def measured(scene: Scene, sizes: Sizes, rounds: int) -> Measures:
    """Measure all peers of *scene* that can be, *rounds* times."""
    peers = []
    for peer in scene.peers:
        if missing := lacks(peer):
            print(f"  {peer.name}: left out, there is no {missing}")
        else:
            peers.append(peer)
    measures: Measures = {peer.name: [] for peer in peers}
    for number in range(rounds):
        for peer in reversed(peers) if number % 2 else peers:
            with place(peer) as where:
                measures[peer.name].append(scene.measure(peer, sizes, where))
    return measures


def ratios(scene: Scene, measures: Measures) -> dict[str, float]:
    """Return how each peer's first measure is to the reference's, by peer."""
    first = next(iter(scene.metrics))
    base = measures.get(scene.reference, [])
    return {
        name: statistics.median(
            (one[first] / other[first]) if other[first] else 0.0
            for one, other in zip(values, base, strict=True)
        )
        for name, values in measures.items()
        if base
    }


def table(scene: Scene, measures: Measures) -> Iterator[str]:
    """Yield the lines of a table: medians, the span of the first, and ratios."""
    first = next(iter(scene.metrics))
    by = ratios(scene, measures)
    width = max(map(len, measures), default=0)
    labels = [metric.label for metric in scene.metrics.values()]
    head = [labels[0], "from - to", *labels[1:], "ratio"]
    rows = []
    for name, values in measures.items():
        cells = []
        for key, metric in scene.metrics.items():
            numbers = [value[key] for value in values]
            cells.append(f"{statistics.median(numbers):.{metric.digits}f}")
            if key == first:
                low, high = min(numbers), max(numbers)
                cells.append(f"{low:.{metric.digits}f} - {high:.{metric.digits}f}")
        cells.append(f"{by[name]:.2f} x" if name in by else "")
        rows.append((name, cells))
    widths = [
        max(len(text) for text in column)
        for column in zip(head, *(cells for _, cells in rows), strict=True)
    ]
    for name, cells in [("", head), *rows]:
        yield "  ".join(
            [f"  {name:<{width}}", *(map(str.rjust, cells, widths))]
        ).rstrip()


def run(scene: Scene, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Run *scene*, print its table, and return what was measured."""
    print(f"\n{scene.name}: {scene.title}")
    if scene.target:
        print(f"  wanted: {scene.target}")
    sys.stdout.flush()
    measures = measured(scene, sizes, rounds)
    for line in table(scene, measures):
        print(line)
    sys.stdout.flush()
    return {"measures": measures, "ratios": ratios(scene, measures)}


def decoder(rounds: int, scale: float) -> None:
    """Run the benchmark of the decoder."""
    print(f"\n{DECODER}: the parser of an event stream\n", flush=True)
    path = Path(__file__).with_name("decoder.py")
    words = ["--rounds", str(rounds), "--scale", str(min(scale, 1.0))]
    subprocess.run([sys.executable, str(path), *words], check=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    names = [*SCENES, DECODER]
    parser = argparse.ArgumentParser(
        description="Measures this package beside others, on loopback."
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5, help="of each scene")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all sizes; 0.01 is for a try"
    )
    parser.add_argument("--connections", type=int, help="clients at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it all there")
    found = parser.parse_args(words)
    if unknown := {*found.scenes} - {*names}:
        parser.error(f"no scene is called {', '.join(sorted(unknown))}")
    return found


def _sizes(arguments: argparse.Namespace) -> Sizes:
    sizes = Sizes().scaled(arguments.scale)
    if arguments.connections:
        sizes = Sizes(**{**vars(sizes), "connections": arguments.connections})
    return sizes


def _allow_files(count: int) -> None:
    """Let this process's children open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def main(words: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    arguments = _arguments(words)
    sizes = _sizes(arguments)
    _allow_files(sizes.connections + 200)
    found: dict[str, Any] = {
        "versions": versions(),
        "sizes": vars(sizes),
        "rounds": arguments.rounds,
        "scenes": {},
    }
    for name, version in found["versions"].items():
        print(f"{name}: {version}")
    print(", ".join(f"{size:,} {name}" for name, size in vars(sizes).items()))
    print(f"medians of {arguments.rounds} rounds; ratios of the same round")
    for name in arguments.scenes or [*SCENES, DECODER]:
        if name == DECODER:
            decoder(arguments.rounds, arguments.scale)
        else:
            found["scenes"][name] = run(SCENES[name], sizes, arguments.rounds)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
