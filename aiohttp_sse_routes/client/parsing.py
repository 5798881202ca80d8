"""Parses streams that somebody else reads.

Law: bytes in, events out, as the HTML standard says; no I/O of its own.
"""

from __future__ import annotations

__all__ = ("aparse", "parse")

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from ..decoder import DecodedEvent, Decoder


def parse(
    chunks: Iterable[bytes], *, max_event_bytes: int = 8 << 20
) -> Iterator[DecodedEvent]:
    """Yield the events of a stream, each with the chunk that completes it.

    Args:
        chunks: The stream, cut anywhere.
        max_event_bytes: How large an event, and a line, may be.

    Raises:
        EventTooLarge: one is larger.
    """
    decoder = Decoder(max_event_bytes=max_event_bytes)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.feed(b"")


async def aparse(
    chunks: AsyncIterable[bytes], *, max_event_bytes: int = 8 << 20
) -> AsyncIterator[DecodedEvent]:
    """Yield the events of a stream, as `parse` does.

    Args:
        chunks: The stream, cut anywhere, as ``response.content.iter_any()`` gives it.
        max_event_bytes: How large an event, and a line, may be.

    Raises:
        EventTooLarge: one is larger.
    """
    decoder = Decoder(max_event_bytes=max_event_bytes)
    async for chunk in chunks:
        for event in decoder.feed(chunk):
            yield event
    decoder.feed(b"")
