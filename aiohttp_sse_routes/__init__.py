"""Server-Sent Events for aiohttp that can be relied on.

Law: this module only says what is public; nothing is implemented here.
"""

from __future__ import annotations

__all__ = (
    "SSE",
    "SSE_KEY",
    "Channels",
    "ConfigurationError",
    "EventError",
    "EventSourceResponse",
    "EventTooLarge",
    "LeaseLost",
    "MemoryStore",
    "NotSetUp",
    "Publisher",
    "Reconnect",
    "RedisStore",
    "ReplayGap",
    "RouteStats",
    "SQLiteStore",
    "SSERouteDef",
    "SSERouteTableDef",
    "SSERoutesError",
    "ServerSentEvent",
    "SharedRun",
    "Stats",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "get_sse",
    "last_event_id",
    "setup",
    "sse_response",
    "sse_route",
)

from . import _requirements

_requirements.check()

from .errors import (
    ConfigurationError,
    EventError,
    EventTooLarge,
    LeaseLost,
    NotSetUp,
    ReplayGap,
    SSERoutesError,
    StoreError,
    StoreUnavailable,
)
from .event import ServerSentEvent
from .face import SSE, SSE_KEY, get_sse
from .http.event_source import EventSourceResponse
from .http.imperative import sse_response
from .http.requests import last_event_id
from .http.routes import SSERouteDef, SSERouteTableDef, sse_route
from .http.stats import RouteStats, Stats
from .logs.memory import MemoryStore
from .logs.redis import RedisStore
from .logs.sqlite import SQLiteStore
from .logs.store import Store
from .plugin import setup
from .publisher import Publisher
from .streams.channels import Channels
from .streams.producer import Reconnect
from .streams.shared import SharedRun
