"""What can go wrong, as one tree of exceptions.

Law: an error keeps its facts as fields, says in ``str()`` what to do, and has one
root, so that ``except SSERoutesError`` catches all of ours and nothing else.

* `SSERoutesError`

  * `ConfigurationError` (also a ``ValueError``): a wrong option, route or call of
    ``setup``, found at decoration, at ``setup`` or at start
  * `NotSetUp` (also a ``RuntimeError``): ``setup(app)`` has not been called
  * `EventError` (also a ``ValueError``): an event that cannot be sent

    * `EventTooLarge`: it is over the limit
"""

from __future__ import annotations

__all__ = (
    "ConfigurationError",
    "EventError",
    "EventTooLarge",
    "NotSetUp",
    "SSERoutesError",
)


class SSERoutesError(Exception):
    """The root of all errors of this package."""


class ConfigurationError(SSERoutesError, ValueError):
    """A route, an option or a call of ``setup`` is wrong; the text names the fix."""


class NotSetUp(SSERoutesError, RuntimeError):
    """The application has no SSE plugin: ``setup(app)`` was not called on it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what}: call aiohttp_sse_routes.setup(app) on the root application "
            "before it starts"
        )


class EventError(SSERoutesError, ValueError):
    """What a handler yielded or published cannot be sent as an event."""


class EventTooLarge(EventError):
    """An event is larger than the limit.

    Attributes:
        size: What it measured, in bytes; at least this much where reading stopped.
        limit: The limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"an event of {self.size} bytes is over the limit of {self.limit}: "
            "raise max_event_bytes, or send a reference in place of the content"
        )
