"""How long a client waits before it comes back.

Law: no clock and no timer; what comes out depends on what was noted, and on luck.
"""

from __future__ import annotations

__all__ = ("Backoff", "Reconnect")

import random
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError

_FLOOR: Final = 0.1
_FIRM: Final = 0.25


@dataclass(frozen=True, slots=True)
class Reconnect:
    """When a client comes back.

    The first attempt after a connection was lost is made at a random moment within the
    stream's ``retry`` (*initial* until it says one); attempt *n* after it within the
    last half (*jitter*) of ``retry * factor ** n``, never more than *max*.

    Attributes:
        initial: Seconds, until the stream says ``retry``.
        factor: By how much each attempt waits longer.
        max: The longest wait, in seconds. A server's Retry-After may ask for more.
        jitter: Which part of a wait is random, 0 to 1.
        reset_after: Seconds that a connection has to last to be held for sound.
        max_attempts: How many attempts are made in a row; None is for ever.
        first_attempts: How many are made before there ever was a connection, the
            first counted; None is for ever.
        retry_statuses: The statuses that are tried again; all others are final.

    Raises:
        ConfigurationError: a number is out of range.
    """

    initial: float = 1.0
    factor: float = 2.0
    max: float = 30.0
    jitter: float = 0.5
    reset_after: float = 5.0
    max_attempts: int | None = None
    first_attempts: int | None = None
    retry_statuses: frozenset[int] = frozenset({408, 425, 429, 500, 502, 503, 504})

    def __post_init__(self) -> None:
        sound = (
            self.initial >= 0
            and self.factor >= 1
            and self.max >= 0
            and 0 <= self.jitter <= 1
            and self.reset_after >= 0
            and (self.max_attempts is None or self.max_attempts >= 0)
            and (self.first_attempts is None or self.first_attempts >= 1)
        )
        if not sound:
            raise ConfigurationError(f"{self!r}: a number is out of range")


class Backoff:
    """Counts the attempts of one stream.

    Args:
        rules: The user's.
        strict: Whether to wait as long as the stream says, and not to count.

    Attributes:
        attempt: How many attempts there were since a connection was sound.
        retry: The stream's reconnection time, in seconds.
        least: How long the next wait has to be, in seconds, whatever *rules* say.
    """

    def __init__(self, rules: Reconnect, *, strict: bool) -> None:
        self.attempt = 0
        self.retry = rules.initial
        self.least = 0.0
        self._rules = rules
        self._strict = strict
        self._opened_at: float | None = None
        self._was_open = False

    def opened(self, now: float) -> None:
        """Note that there is a connection."""
        self._opened_at = now
        self._was_open = True
        self.least = 0.0

    def lost(self, now: float) -> None:
        """Note that it is gone; if it was sound, the counting begins anew."""
        since, self._opened_at = self._opened_at, None
        if since is not None and now - since >= self._rules.reset_after:
            self.attempt = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether there are to be no more attempts."""
        if self._was_open:
            limit, made = self._rules.max_attempts, self.attempt
        else:
            limit, made = self._rules.first_attempts, self.attempt + 1
        return limit is not None and made >= limit

    def next(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait for the next attempt, and count it.

        Args:
            retry_after: The least that the server's answer asks for.
        """
        attempt = self.attempt
        self.attempt += 1
        if self._strict:
            return self.retry
        rules = self._rules
        luck = random.random()  # noqa: S311 - spreads clients, keeps no secret
        # Bounded, or a client that was alone for long overflows a float.
        growth = rules.factor ** min(attempt, 64)
        full = min(rules.max, max(_FLOOR, self.retry) * growth)
        share = 1 - rules.jitter * luck if attempt else luck
        least = max(self.least, retry_after or 0.0)
        return max(_FLOOR, full * share, least * (1 + _FIRM * luck))
