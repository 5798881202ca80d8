"""Tables of what was measured, for a terminal and for Markdown.

Law: a number is the median of the rounds, and a ratio the median of the ratios of the
same round; beside the first number stands between what and what it was.
"""

from __future__ import annotations

__all__ = ("Measures", "markdown", "medians", "ratios", "text")

import statistics
from collections.abc import Iterator, Mapping

from .scene import Scene

Measures = dict[str, list[Mapping[str, float]]]
"""What was measured, by peer: one mapping a round."""


def medians(rounds: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each number."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


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


def text(scene: Scene, measures: Measures) -> Iterator[str]:
    """Yield the lines of a table for a terminal."""
    rows = [*_rows(scene, measures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        justified = map(str.rjust, cells, widths[1:])
        yield "  ".join([f"  {name:<{widths[0]}}", *justified]).rstrip()


def markdown(scene: Scene, measures: Measures) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    head, *rows = _rows(scene, measures)
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _rows(scene: Scene, measures: Measures) -> Iterator[list[str]]:
    first, *others = scene.metrics.items()
    by = ratios(scene, measures)
    labels = [metric.label for _, metric in others]
    yield ["", first[1].label, "from - to", "ratio", *labels]
    for name, rounds in measures.items():
        key, metric = first
        numbers = [one[key] for one in rounds]
        digits = metric.digits
        median = medians(rounds)
        yield [
            name,
            f"{median[key]:,.{digits}f}",
            f"{min(numbers):,.{digits}f} - {max(numbers):,.{digits}f}",
            f"{by[name]:.2f} x" if name in by else "",
            *(f"{median[key]:,.{metric.digits}f}" for key, metric in others),
        ]
