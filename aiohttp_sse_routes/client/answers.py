"""What a server's answer means: a stream, a refusal, or a fault of the way to it.

Law: an answer is judged by its status and headers; of a refusal's body no more is read
than 4 KiB, and than comes in half a second.
"""

from __future__ import annotations

__all__ = ("LOST", "fatal", "last_word", "refusal", "retry_after")

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy

from ..decoder import MAX_RETRY
from .errors import (
    SseConnectionError,
    SseContentTypeError,
    SseError,
    SseHTTPError,
)

LOST: Final = (aiohttp.ClientError, OSError, asyncio.TimeoutError, EOFError)
"""What aiohttp raises where a connection cannot be had or does not last."""

_BODY: Final = 4096
_BODY_SECONDS: Final = 0.5
_TYPE: Final = "text/event-stream"
_PLAIN: Final = ("", "identity")


async def refusal(
    response: aiohttp.ClientResponse, *, decompresses: bool
) -> SseHTTPError | None:
    """Return why *response* is no stream; None if it is one.

    Args:
        response: The answer.
        decompresses: Whether aiohttp undoes its Content-Encoding.
    """
    headers = response.headers
    kind = SseHTTPError
    reason = response.reason or ""
    if response.status == 200:
        kind = SseContentTypeError
        coding = headers.get("Content-Encoding", "").strip().lower()
        if not _is_stream(headers):
            reason = f"with Content-Type {headers.get('Content-Type', '')[:128]!r}"
        elif coding not in _PLAIN and not decompresses:
            reason = f"is {coding[:64]!r}, and the session has auto_decompress=False"
        else:
            return None
    body = b"" if response.status == 204 else await _beginning(response)
    after = retry_after(headers)
    return kind(response.status, headers, body, reason=reason, retry_after=after)


def _is_stream(headers: CIMultiDictProxy[str]) -> bool:
    # The fetch standard takes the last of several types; parameters do not count.
    given = ",".join(headers.getall("Content-Type", ()))
    essence = given.rpartition(",")[2].partition(";")[0]
    return essence.strip(" \t\r\n").lower() == _TYPE


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while len(body) < _BODY and (data := await response.content.readany()):
                body += data
    except LOST:
        pass  # what there is of it is enough
    return body[:_BODY]


def retry_after(headers: CIMultiDictProxy[str]) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    longest = MAX_RETRY / 1000
    if value.isascii() and value.isdigit():
        return min(float(value[:16]), longest)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return None
    return min(max(seconds, 0.0), longest)


def fatal(error: BaseException) -> SseError | None:
    """Return what *error* means if it is more than a connection that was not had."""
    final = _fatal(error)
    if final is not None:
        final.__cause__ = error
    return final


def _fatal(error: BaseException) -> SseError | None:
    if isinstance(error, aiohttp.TooManyRedirects):
        return SseHTTPError(error.history[-1].status, reason="redirects without end")
    if isinstance(error, aiohttp.RedirectClientError):
        return SseHTTPError(302, reason=f"redirects to {str(error)[:256]!r}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        headers = CIMultiDictProxy(CIMultiDict(error.headers or {}))
        after = retry_after(headers)
        return SseHTTPError(
            error.status, headers, reason="from the proxy", retry_after=after
        )
    if isinstance(error.__cause__, LineTooLong):
        return SseConnectionError("the answer's headers are too large")
    if isinstance(error, aiohttp.InvalidURL):
        return SseConnectionError(f"no stream can be at {str(error)[:256]}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return SseConnectionError(
            f"the server's certificate is not valid: {error.certificate_error}; "
            f"where it is to be trusted all the same, give ssl= a context that does"
        )
    return None


def last_word(reason: str, error: BaseException | None, attempts: int) -> SseError:
    """Return what is to be raised where no attempt is left.

    Args:
        reason: How the last one ended.
        error: What ended it, if something did.
        attempts: How many there were.
    """
    if isinstance(error, SseHTTPError):
        return error
    final = SseConnectionError(
        f"no stream after {attempts} attempts, the last ended by: {error or reason}"
    )
    final.__cause__ = error
    return final
