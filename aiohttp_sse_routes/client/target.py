"""What is requested, and how: the request of one stream, attempt after attempt.

Law: what the user gave is copied and never changed. Every default of aiohttp that
would end or distort a long stream is overridden here, for any session.
"""

from __future__ import annotations

__all__ = ("Headers", "Target", "checked_id", "checked_url")

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ..errors import ConfigurationError
from .errors import SseHTTPError, SseIdError

Headers = (
    Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
)

_HOPS: Final = 20
_UNDONE: Final = frozenset({408, 425, 429, 503})
"""Statuses that say that nothing was done."""

_UNSENDABLE: Final = re.compile("[\0-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_OURS: Final = frozenset(
    {
        "allow_redirects",
        "auth",
        "auto_decompress",
        "expect100",
        "max_redirects",
        "raise_for_status",
        "read_until_eof",
        "timeout",
    }
)


class Target:
    """The request of a stream.

    Args:
        url: Where it is.
        method: The HTTP method.
        params: Added to the query.
        headers: Sent with each attempt, or a function that returns them.
        json: The body, as JSON.
        data: The body.
        options: More arguments of `aiohttp.ClientSession.request`.
        strict: Whether to send the headers of a browser.

    Raises:
        ConfigurationError: the request cannot be made as it is.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        method: str,
        params: Any,
        headers: Headers | None,
        json: Any,
        data: Any,
        options: Mapping[str, Any],
        strict: bool,
    ) -> None:
        if taken := sorted(_OURS & options.keys()):
            raise ConfigurationError(
                f"{', '.join(taken)}: the client sets these itself"
            )
        if json is not None and data is not None:
            raise ConfigurationError("give json= or data=, not both")
        self.url = checked_url(url)
        self.method = method.upper()
        self._headers = headers
        self._options = {**options, "params": params, "json": json, "data": data}
        self._head = {
            "Accept": "text/event-stream",
            # A coding would hold events back until a block of it is full.
            "Accept-Encoding": "identity",
            "Cache-Control": "no-cache",
        }
        if strict:
            self._head["Pragma"] = "no-cache"

    @property
    def has_fresh_headers(self) -> bool:
        """Whether each attempt asks for its headers."""
        return callable(self._headers)

    def is_repeatable(self, place: str, error: BaseException | None) -> bool:
        """Return whether the request may be made again: a POST that was done is not.

        Args:
            place: The last event ID, by which it would go on and not begin anew.
            error: What the last attempt ended in.
        """
        if self.method in ("GET", "HEAD") or place:
            return True
        return isinstance(error, SseHTTPError) and error.status in _UNDONE

    async def request(
        self, session: aiohttp.ClientSession, place: str, timeout: float | None
    ) -> aiohttp.ClientResponse:
        """Make one attempt.

        Args:
            session: By which it is made.
            place: The last event ID.
            timeout: Seconds for it, up to the answer's headers.

        Raises:
            SseIdError: *place* cannot be sent.
            TimeoutError: there was no answer in time.
        """
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self._request(session, place)
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"no answer within connect_timeout={timeout} s{_crowd(session)}"
            raise TimeoutError(text) from error

    async def _request(
        self, session: aiohttp.ClientSession, place: str
    ) -> aiohttp.ClientResponse:
        headers = CIMultiDict(self._head)
        headers.update(await self._given())
        # HTTP strips what is around a value.
        if sent := place.strip(" \t"):
            if _UNSENDABLE.search(sent):
                raise SseIdError(place)
            headers["Last-Event-ID"] = sent
        return await session.request(
            self.method,
            self.url,
            headers=headers,
            # A session's own ends every stream after five minutes. The attempt as a
            # whole has a limit, and what is open has the watchdog.
            timeout=aiohttp.ClientTimeout(total=None),
            allow_redirects=True,
            max_redirects=_HOPS + 1,
            raise_for_status=False,
            **self._options,
        )

    async def _given(self) -> Mapping[str, str]:
        given = self._headers
        if callable(given):
            result = given()
            return await result if inspect.isawaitable(result) else result
        return given or {}


def _crowd(session: aiohttp.ClientSession) -> str:
    """Return what else may be why there is no answer: all places are taken."""
    connector = session.connector
    if connector is None or not (connector.limit or connector.limit_per_host):
        return ""
    return (
        f"; each open stream takes a place of the session's connector, which has "
        f"limit={connector.limit} and limit_per_host={connector.limit_per_host}"
    )


def checked_url(url: str | URL) -> URL:
    """Return *url* if a stream can be there.

    Raises:
        ConfigurationError: it is none, is not HTTP, or has a user in it.
    """
    try:
        parsed = URL(url)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{url!r} has to begin with http:// or https://")
    if parsed.user is not None or parsed.password is not None:
        raise ConfigurationError(
            "a URL with a user in it ends up in logs: send the header Authorization, "
            "which aiohttp.encode_basic_auth(user, password) makes"
        )
    return parsed


def checked_id(last_event_id: str) -> str:
    """Return *last_event_id* if it can be sent.

    Raises:
        ConfigurationError: it has a control character.
    """
    if _UNSENDABLE.search(last_event_id):
        raise ConfigurationError(f"last_event_id={last_event_id!r} cannot be sent")
    return last_event_id
