"""Runs the benchmarks: ``python -m benchmarks.run [SCENE...]``; ``make bench`` all.

Law: each round measures every peer of a scene once, in turn, each second round the
other way round; what is told are medians, and ratios of measures of the same round.
"""

from __future__ import annotations

__all__ = ("main",)

import argparse
import contextlib
import json
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import decoder, fanout, holding, stores, trouble, workers
from .processes import Redis
from .scene import Peer, Place, Scene, Sizes, lacks
from .tables import Measures, ratios, text
from .versions import versions

SCENES = {
    scene.name: scene
    for module in (fanout, holding, trouble, workers, stores, decoder)
    for scene in module.SCENES
}


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


def measured(
    scene: Scene, sizes: Sizes, rounds: int, without: Sequence[str] = ()
) -> Measures:
    """Measure all peers of *scene* that can be, *rounds* times.

    Args:
        scene: The scene.
        sizes: How much is done.
        rounds: How often.
        without: Words in the names of those to leave out.
    """
    peers = []
    for peer in scene.peers:
        if any(word.lower() in peer.name.lower() for word in without):
            print(f"  {peer.name}: left out, as it was asked for")
        elif missing := lacks(peer):
            print(f"  {peer.name}: left out, there is no {missing}")
        else:
            peers.append(peer)
    measures: Measures = {peer.name: [] for peer in peers}
    for number in range(rounds):
        for peer in reversed(peers) if number % 2 else peers:
            if peer.name not in measures:
                continue
            try:
                with place(peer) as where:
                    measures[peer.name].append(scene.measure(peer, sizes, where))
            except (OSError, RuntimeError) as exc:
                # One that fails is no reason to lose an hour of the others.
                print(f"  {peer.name}: FAILED: {exc}")
                del measures[peer.name]
    return measures


def run(
    scene: Scene, sizes: Sizes, rounds: int, without: Sequence[str] = ()
) -> dict[str, Any]:
    """Run *scene*, print its table, and return what was measured."""
    print(f"\n{scene.name}: {scene.title}")
    if scene.target:
        print(f"  wanted: {scene.target}")
    sys.stdout.flush()
    measures = measured(scene, sizes.of(scene), rounds, without)
    for line in text(scene, measures):
        print(line)
    sys.stdout.flush()
    return {"measures": measures, "ratios": ratios(scene, measures)}


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures this package beside others, on loopback."
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--rounds", type=int, default=5, help="of each scene")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all sizes; 0.01 is for a try"
    )
    parser.add_argument("--connections", type=int, help="clients at a time")
    parser.add_argument(
        "--without",
        nargs="+",
        default=(),
        metavar="WORD",
        help="leave out peers with such a word in their names",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it all there")
    found = parser.parse_args(words)
    if unknown := {*found.scenes} - {*SCENES}:
        parser.error(f"no scene is called {', '.join(sorted(unknown))}")
    return found


def _sizes(arguments: argparse.Namespace) -> Sizes:
    sizes = Sizes().scaled(arguments.scale)
    if arguments.connections:
        sizes = Sizes(**{**vars(sizes), "connections": arguments.connections})
    return sizes


def _allow_files(count: int) -> None:
    """Let this process's children open so many files; more than the limit if root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
        except (OSError, ValueError):
            print(f"only {hard:,} files may be open: see ulimit -n")
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(words: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    arguments = _arguments(words)
    sizes = _sizes(arguments)
    wanted = [*map(SCENES.__getitem__, arguments.scenes or SCENES)]
    _allow_files(200 + max(sizes.of(scene).connections for scene in wanted))
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
    for scene in wanted:
        found["scenes"][scene.name] = run(
            scene, sizes, arguments.rounds, arguments.without
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
