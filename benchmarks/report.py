"""What a run found, for the documentation: ``python -m benchmarks.report FILE``.

Law: it reads what ``--json`` has written, and measures nothing. ``--into PAGE`` puts it
between the page's two marks, where nobody writes by hand; ``--plot FILE`` draws it.
"""

from __future__ import annotations

__all__ = ("held", "main", "put", "report")

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .peers import OURS, UVLOOP
from .plot import plot
from .run import SCENES
from .tables import Measures, markdown, medians

BEGIN: Final = "<!-- figures: python -m benchmarks.report build/bench.json --into -->"
END: Final = "<!-- end of figures -->"

BUSY: Final = 0.7
"""The part of a core that one plans with; the rest is for what nobody plans."""

MANY: Final = 100_000
"""Connections that memory is told for."""

PICTURE: Final = "Prices of this package and its peers, as bars"
"""What the plot, which is to stand beside the page, is in words."""

Found = Mapping[str, Any]


def report(found: Found) -> Iterator[str]:
    """Yield the lines of all tables."""
    versions = found["versions"]
    machine = [versions[name] for name in ("processor", "system", "python")]
    others = [
        f"{name} {version}"
        for name, version in versions.items()
        if name not in {"processor", "system", "python"}
    ]
    yield f"On {', '.join(machine)}; {', '.join(others)}."
    yield f"Medians of {found['rounds']} rounds; ratios are of the same round."
    yield ""
    yield "### What one core holds"
    yield ""
    yield from held(found)
    for name, scene in SCENES.items():
        if name in found["scenes"]:
            yield ""
            yield f"### {scene.title}"
            yield ""
            wanted = f"; wanted: {scene.target}" if scene.target else ""
            yield f"`{name}`{wanted}"
            yield ""
            yield from markdown(scene, found["scenes"][name]["measures"])


def held(found: Found) -> Iterator[str]:
    """Yield the lines of a table of what follows from the numbers."""
    columns = [(OURS, "asyncio"), (f"{OURS}, {UVLOOP}", "uvloop")]
    yield f"| at {BUSY:.0%} of a core | {' | '.join(name for _, name in columns)} |"
    yield "|---|---:|---:|"
    for label, scene, peer, key, count in (
        ("deliveries a second, 1,000 connections", "fan-out-1000", "", "cpu", _times),
        ("deliveries a second, 10,000 connections", "fan-out-10000", "", "cpu", _times),
        ("events of generators a second", "private", "", "cpu", _times),
        ("new connections a second", "connections", "a channel", "cpu", _times),
        (f"GiB for {MANY:,} connections", "connections", "a channel", "memory", _gib),
    ):
        cells = []
        for name, _ in columns:
            measures: Measures = found["scenes"].get(scene, {}).get("measures", {})
            rounds = measures.get(f"{name}, {peer}") or measures.get(name)
            cells.append(count(medians(rounds)[key]) if rounds else "")
        yield f"| {label} | {' | '.join(cells)} |"


def _times(microseconds: float) -> str:
    """Return how often that goes into the second of which `BUSY` is used."""
    times = BUSY * 1e6 / microseconds
    return f"{float(f'{times:.2g}'):,.0f}"


def _gib(kib: float) -> str:
    return f"{kib * MANY / 1024**2:.1f}"


def put(text: str, lines: Sequence[str]) -> str:
    """Return the page's *text* with *lines* between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page needs two lines: {BEGIN} and {END}")
    return "\n".join([before + begin, "", *lines, "", end]) + after


def main(words: Sequence[str] | None = None) -> None:
    """Print, or put in a page, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="what --json has written")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="a page with marks")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG to draw")
    arguments = parser.parse_args(words)
    found = json.loads(arguments.file.read_text("utf-8"))
    lines = [*report(found)]
    if arguments.plot:
        arguments.plot.write_text(plot(found), "utf-8")
        lines += ["", f"![{PICTURE}]({arguments.plot.name})"]
    if arguments.into:
        page = put(arguments.into.read_text("utf-8"), lines)
        arguments.into.write_text(page, "utf-8")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
