"""A client of event streams for Python programs, on aiohttp's ``ClientSession``.

Law: this module only says what is public; nothing is implemented here.
"""

from __future__ import annotations

__all__ = (
    "Event",
    "EventTooLarge",
    "Gap",
    "Parser",
    "Reconnect",
    "ReplayGap",
    "SseConnectionError",
    "SseContentTypeError",
    "SseDecodeError",
    "SseError",
    "SseHTTPError",
    "SseIdError",
    "StateInfo",
    "Stream",
    "aparse",
    "connect",
    "parse",
)

from ..decoder import Decoder as Parser
from ..errors import EventTooLarge, ReplayGap
from .backoff import Reconnect
from .connecting import connect
from .errors import (
    SseConnectionError,
    SseContentTypeError,
    SseDecodeError,
    SseError,
    SseHTTPError,
    SseIdError,
)
from .event import Event, Gap, StateInfo
from .parsing import aparse, parse
from .stream import Stream
