"""Draws what a run found, as one small SVG for the documentation.

Law: each panel is one scene, its bars are medians, and the line in a bar is from the
least to the most of the rounds. Less is better in all. The same numbers give the same
bytes.
"""

from __future__ import annotations

__all__ = ("plot",)

from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from .peers import OURS
from .tables import Measures, medians

PANELS: Final = (
    ("fan-out-1000", "cpu", "CPU of a delivery to 1,000 connections, µs"),
    ("private", "cpu", "CPU of a generator's event, 200 clients, µs"),
    ("connections", "memory", "Memory of a connection, KiB"),
    ("requests", "p99", "Other requests during a fan-out to 10,000, p99, ms"),
)
"""Scene, number, and what the panel is called."""

_OURS: Final = "#1f6feb"
_OTHERS: Final = "#9aa4b2"
_ROW: Final = 17
_LEFT: Final = 210
_BAR: Final = 460
_WIDTH: Final = 740


def plot(found: Mapping[str, Any]) -> str:
    """Return an SVG of those panels that *found* has."""
    parts: list[str] = []
    top = 12
    for scene, key, title in PANELS:
        if measures := found["scenes"].get(scene, {}).get("measures"):
            parts += _panel(measures, key, title, top)
            top += _ROW * (len(measures) + 3)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" '
        f'font-family="sans-serif" font-size="12" fill="#1f2328">\n'
        f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def _panel(measures: Measures, key: str, title: str, top: int) -> Iterator[str]:
    y = top + _ROW
    yield f'<text x="8" y="{y}" font-weight="bold">{escape(title)}</text>'
    most = max(one[key] for rounds in measures.values() for one in rounds)
    scale = _BAR / max(most, 1e-9)
    for name, rounds in measures.items():
        y += _ROW
        yield from _bar(name, rounds, key, scale, y)


def _bar(
    name: str, rounds: list[Mapping[str, float]], key: str, scale: float, y: int
) -> Iterator[str]:
    numbers = [max(0.0, one[key]) * scale for one in rounds]
    median = medians(rounds)[key]
    width = max(0.0, median) * scale
    color = _OURS if name.startswith(OURS) else _OTHERS
    yield f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(name)}</text>'
    yield (
        f'<rect x="{_LEFT}" y="{y - 10}" width="{width:.1f}" height="12" '
        f'fill="{color}"/>'
    )
    yield (
        f'<path d="M{_LEFT + min(numbers):.1f} {y - 4}H{_LEFT + max(numbers):.1f}" '
        f'stroke="#1f2328"/>'
    )
    x = _LEFT + max([width, *numbers]) + 6
    yield f'<text x="{x:.1f}" y="{y}">{median:,.3g}</text>'
