"""What a client of a stream can be told.

Law: an error keeps its facts as fields, and holds no response and no connection.

* `SseError` (a `SSERoutesError`)

  * `SseConnectionError` (also a ``ConnectionError``): no stream could be had
  * `SseHTTPError`: the answer is no stream

    * `SseContentTypeError`: its status is 200, and its content something else

  * `SseIdError`: the place to resume at cannot be sent
  * `SseDecodeError`: an event's data are not what was said
"""

from __future__ import annotations

__all__ = (
    "SseConnectionError",
    "SseContentTypeError",
    "SseDecodeError",
    "SseError",
    "SseHTTPError",
    "SseIdError",
)

from multidict import CIMultiDict, CIMultiDictProxy

from ..decoder import DecodedEvent
from ..errors import SSERoutesError


class SseError(SSERoutesError):
    """The root of what a client of a stream raises."""


class SseConnectionError(SseError, ConnectionError):
    """No stream could be had, and it was not to be tried again.

    What went wrong last is its ``__cause__``.
    """


class SseHTTPError(SseError):
    """The server has answered, and not with a stream.

    Attributes:
        status: The answer's status.
        headers: Its headers.
        body: The beginning of its body, at most 4,096 bytes.
        reason: What is wrong with it.
        retry_after: The seconds that it asks to wait; None if it does not.
    """

    def __init__(
        self,
        status: int,
        headers: CIMultiDictProxy[str] | None = None,
        body: bytes = b"",
        *,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or CIMultiDictProxy(CIMultiDict[str]())
        self.body = body
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the answer is no stream: status {self.status} {self.reason}".rstrip()


class SseContentTypeError(SseHTTPError):
    """The answer's status is 200, but its content is no event stream."""


class SseIdError(SseError):
    """The last event ID has characters that no HTTP header can carry.

    Attributes:
        id: The id.
    """

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"the last event ID {self.id[:64]!r} cannot be sent to resume there"


class SseDecodeError(SseError, ValueError):
    """An event's data cannot be decoded as was asked; iterating goes on behind it.

    Attributes:
        event: The event as it came.
    """

    def __init__(self, event: DecodedEvent) -> None:
        super().__init__(event)
        self.event = event

    def __str__(self) -> str:
        return f"the data of an event {self.event.type!r} cannot be decoded"
