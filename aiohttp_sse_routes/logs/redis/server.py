"""What a Redis says of itself, and what of that a log cannot live with.

Law: what makes it lose events, or hides that it has, is said once, when it is met.
"""

from __future__ import annotations

__all__ = ("examine",)

import logging
import re
from collections.abc import Mapping
from typing import Final

from .errors import Unusable
from .remote import Remote
from .wire import Server

_logger = logging.getLogger("aiohttp_sse_routes")

_OLDEST: Final = (6, 2)


async def examine(remote: Remote, server: Server, *, again: bool) -> None:
    """Look whether the Redis can keep a log.

    Args:
        remote: By which it is asked.
        server: What it is called.
        again: Whether it was examined before: what is bearable was said then.

    Raises:
        Unusable: it cannot.
        StoreUnavailable: it cannot be asked.
    """
    try:
        about = await remote.about()
    except Unusable as error:
        if error.code != "NOPERM":
            raise
        about = {}
    version = re.match(r"(\d+)\.(\d+)", about.get("redis_version", ""))
    if version and (int(version[1]), int(version[2])) < _OLDEST:
        raise Unusable(
            f"Redis at {server.name} is of version {about['redis_version']}: "
            "RedisStore needs 6.2 or later"
        )
    if not again:
        _warn(about, server)


def _warn(about: Mapping[str, str], server: Server) -> None:
    """Say what is bearable and no good."""
    if "master_replid" not in about:
        missing = "a failover is" if "run_id" in about else "restarts and failovers are"
        _logger.warning(
            "Redis at %s does not tell its master_replid: %s not noticed, and what it "
            "loses by one is not told to clients; allow the command INFO",
            server.name,
            missing,
        )
    policy = about.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and about.get("maxmemory", "0") != "0":
        _logger.warning(
            "Redis at %s has maxmemory-policy %s: short of memory it drops events "
            "before their time; set noeviction",
            server.name,
            policy,
        )
