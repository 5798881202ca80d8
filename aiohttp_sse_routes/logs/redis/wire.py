"""Where Redis is, and an open connection to it: bytes out, answers in.

Law: redis-py opens connections, logs in and reads answers; a password never gets into
a text.
"""

from __future__ import annotations

__all__ = ("Server", "Wire", "masked", "packed")

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    UnixDomainSocketConnection,
    parse_url,
)

from ...errors import ConfigurationError
from .errors import explained

# To tell Redis its version, redis-py would read a file for each connection.
_UNNAMED: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)

_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})


class Server:
    """Which Redis it is, and how a connection to it is opened.

    Args:
        url: As redis-py takes it.
        timeout: Seconds that it has for any answer.

    Attributes:
        name: What it is called in messages; without a password.
        db: The number of its database.

    Raises:
        ConfigurationError: *url* is none of a Redis.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.timeout = timeout
        try:
            options: dict[str, Any] = dict(parse_url(url))
            self._kind = options.pop("connection_class", Connection)
            if not issubclass(self._kind, UnixDomainSocketConnection):
                options["socket_keepalive"] = True
            options.update(
                protocol=2,
                decode_responses=False,
                socket_timeout=None,
                socket_connect_timeout=timeout,
                **_UNNAMED,
            )
            self._options = options
            self._kind(**options)
        except (TypeError, ValueError, exceptions.RedisError) as error:
            # What cannot be read as a port may be half a password: not repeated.
            why = "" if "port" in str(error).lower() else f" ({error})"
            raise ConfigurationError(
                f"RedisStore({masked(url)!r}): this is no URL of a Redis{why}; one is "
                "as in redis://user:password@host:6379/0, rediss://... for TLS, or "
                "unix:///path/redis.sock?db=0; special characters of a password are "
                "written as in %2F"
            ) from None
        self.db = int(options.get("db", 0))
        self.name = masked(url)

    async def connect(self) -> Wire:
        """Return a new connection, which is logged in and has its database.

        Raises:
            StoreUnavailable: there is none to be had.
        """
        connection: AbstractConnection = self._kind(**self._options)
        try:
            async with asyncio.timeout(self.timeout):
                await connection.connect()  # type: ignore[no-untyped-call, unused-ignore]
            return Wire(connection)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise explained(error, self.name) from error
            raise


class Wire:
    """An open connection: bytes out, answers in."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        writer = connection._writer  # noqa: SLF001 -- see drop()
        assert writer is not None
        self._transport = writer.transport

    async def send(self, *data: bytes) -> None:
        """Send *data*."""
        await self._connection.send_packed_command(data, check_health=False)

    async def receive(self) -> Any:
        """Return the next answer, of bytes; raise it, if it is an error."""
        return await self._connection.read_response(
            disable_decoding=True, disconnect_on_error=False
        )

    async def drop(self) -> None:
        """Close at once: what was not sent yet is never sent."""
        # redis-py has no word for it: its disconnect() would go on sending.
        self._transport.abort()
        await self._connection.disconnect(nowait=True)
        # The transport lets go of its socket in the loop's next turn.
        await asyncio.sleep(0)


def packed(words: Sequence[bytes]) -> bytes:
    """Return a command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def masked(url: str) -> str:
    """Return *url* without user, password and options."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "..."
    if parts.scheme not in _SCHEMES:
        return "..."
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
