"""What a test is told when a stream does not do what was asked of it.

Law: the text says what had come, and what is there in place of what was wanted.
"""

from __future__ import annotations

__all__ = ("LeftBehind", "NotAStream", "StreamCut", "StreamEnded", "StreamTimeout")

from collections.abc import Sequence

from aiohttp import ClientPayloadError

from ..decoder import DecodedEvent
from ..errors import SSERoutesError


class StreamEnded(SSERoutesError):
    """The stream ended before what was asked for had come.

    Attributes:
        seen: The events that had come, over all connections.
    """

    how = "the stream ended"

    def __init__(self, seen: Sequence[DecodedEvent], story: str = "") -> None:
        super().__init__(seen, story)
        self.seen = list(seen)
        self.story = story

    def __str__(self) -> str:
        if not self.story:
            return f"{self.how} after {[event.data for event in self.seen]!r}"
        return f"{self.how}: {self.story}"


class StreamCut(StreamEnded, ClientPayloadError):
    """The connection was cut: the stream stopped without an end.

    It is what aiohttp raises, too: a ClientPayloadError.
    """

    how = "the connection was cut"


class NotAStream(StreamEnded):
    """The answer is no event stream: a refusal, a redirect, a page."""

    how = "the answer is no event stream"


class StreamTimeout(SSERoutesError, TimeoutError):
    """What was asked for did not come in time.

    Attributes:
        seen: The events that had come, over all connections.
    """

    def __init__(self, seen: Sequence[DecodedEvent], story: str) -> None:
        super().__init__(seen, story)
        self.seen = list(seen)
        self.story = story

    def __str__(self) -> str:
        return self.story


class LeftBehind(AssertionError):
    """Something of an application is still there that should have ended.

    Attributes:
        left: What, and where, each in words.
    """

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__(left)
        self.left = list(left)

    def __str__(self) -> str:
        return "\n".join([f"{len(self.left)} left behind:", *self.left])
