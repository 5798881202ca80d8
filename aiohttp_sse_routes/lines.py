"""The lines of an event stream, out of text in which a byte is a character.

Law: lines are cut before they are decoded, and many are decoded at once; what they
become does not depend on how many. Of a large text only a piece's lines are there at a
time.

A byte is a character of the same number here, for the interpreter finds, splits and
joins short strings several times faster than bytes.
"""

from __future__ import annotations

__all__ = ("BYTES", "split", "utf8")

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

BYTES: Final = "latin-1"
"""The codec of a text in which a byte is a character."""

_PIECE: Final = 1 << 13
"""Characters that are split at once."""


def split(text: str, made: Callable[[str], str]) -> Iterator[str]:
    """Yield the lines of what is *made* of *text*, a piece at a time.

    The list of all lines can be ten times as large as they are.
    """
    if len(text) <= _PIECE:
        return iter(made(text).split("\n"))
    return chain.from_iterable(made(piece).split("\n") for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while (end := text.find("\n", start + _PIECE)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def utf8(lines: str) -> str:
    """Return *lines* as the UTF-8 that their bytes are."""
    # 9.2.6: streams are UTF-8 whatever they say, and malformed bytes become U+FFFD.
    # Whole lines decode as the stream would, since no LF is ever part of a sequence,
    # however malformed; and many together much faster than each alone.
    if lines.isascii():
        return lines
    return lines.encode(BYTES).decode("utf-8", "replace")
