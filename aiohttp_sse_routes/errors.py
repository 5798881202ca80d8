"""What can go wrong, as one tree of exceptions.

Law: an error keeps its facts as fields, says in ``str()`` what to do, and has one
root, so that ``except SSERoutesError`` catches all of ours and nothing else.

* `SSERoutesError`

  * `ConfigurationError` (also a ``ValueError``): a wrong option, route or call of
    ``setup``, found at decoration, at ``setup`` or at start
  * `NotSetUp` (also a ``RuntimeError``): ``setup(app)`` has not been called
  * `EventError` (also a ``ValueError``): an event that cannot be sent

    * `EventTooLarge`: it is over the limit

  * `StoreError`: the store of the channels cannot do what it was asked for

    * `StoreUnavailable` (also a ``ConnectionError``): not now; later it may
    * `LeaseLost`: another worker does it by now

  * `ReplayGap`: a subscription has a hole
"""

from __future__ import annotations

__all__ = (
    "ConfigurationError",
    "EventError",
    "EventTooLarge",
    "LeaseLost",
    "NotSetUp",
    "ReplayGap",
    "SSERoutesError",
    "StoreError",
    "StoreUnavailable",
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


class StoreError(SSERoutesError):
    """The store cannot do what it was asked for; the text says why, and what to do."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached, or takes nothing, at the moment.

    It may be tried again. Whether an event that was being published is in the log is
    not known: give ``idempotency_key=`` to be able to repeat without a double.
    """


class LeaseLost(StoreError):
    """What was appended under a lease came too late: nothing was appended."""


class ReplayGap(SSERoutesError):
    """Events of a subscription are lost; iterating goes on behind the hole.

    Attributes:
        reason: Why, in the words of ``sse-gap``: ``expired``, ``slow``, ``unknown``,
            ``reset`` or ``restarted``.
        after: The cursor that the subscription had come to; None if it is not known.
        cursor: The place from which it goes on.
    """

    def __init__(self, reason: str, after: str | None, cursor: str) -> None:
        super().__init__(reason, after, cursor)
        self.reason = reason
        self.after = after
        self.cursor = cursor

    def __str__(self) -> str:
        return (
            f"events behind {self.after} are lost ({self.reason}): read the present "
            f"state anew, then go on with the same subscription, from {self.cursor}"
        )
