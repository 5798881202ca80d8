"""What a stream hands over: events, gaps and states.

Law: nothing here knows where the bytes came from.
"""

from __future__ import annotations

__all__ = ("Decode", "Event", "Gap", "Opener", "State", "StateInfo")

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ..decoder import DecodedEvent
from ..errors import ConfigurationError
from .errors import SseDecodeError

Decode = Literal["text", "json", "auto"] | Callable[[str], Any]
State = Literal["connecting", "open", "waiting", "closed"]


class Event(msgspec.Struct, frozen=True):
    """An event of a stream.

    Attributes:
        type: Its name; ``message`` where the stream gave none.
        data: What ``decode=`` or ``events=`` made of its text.
        id: The id that it carried itself, or None.
        last_event_id: Where to resume after it.
        raw: Its text.
        replayed: Whether it was there before the connection that it came on; False
            where the server does not say.
        received_at: When it was handed over, in seconds of the stream's clock.
        is_json: Whether a server of ours has sent it as JSON.
    """

    type: str
    data: Any
    id: str | None
    last_event_id: str
    raw: str
    replayed: bool
    received_at: float
    is_json: bool

    def json(self) -> Any:
        """Return the value that the text is as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.raw)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are lost.

    Attributes:
        reason: ``expired``, ``slow``, ``unknown``, ``reset`` or ``restarted``.
        after: The place behind which they were, if the server knows.
        id: The place from which the stream goes on.
    """

    reason: str
    after: str | None
    id: str


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What a stream is about.

    Attributes:
        state: ``connecting``, ``open``, ``waiting`` for its next attempt, ``closed``.
        attempt: How many attempts there were since a connection was sound.
        delay: In how many seconds the next is made, when *waiting*.
        reason: Why it is so, in a word: ``eof``, ``network``, ``stalled``, ``status``,
            ``busy``, ``error`` or ``asked`` when *waiting*; why it is *closed*:
            ``done``, ``client``, ``fatal``, or the reason of an ``sse-end``.
        error: What went wrong, if something did.
    """

    state: State
    attempt: int = 0
    delay: float | None = None
    reason: str | None = None
    error: BaseException | None = None


class Opener:
    """Makes `Event` of what was decoded.

    Args:
        decode: What is made of a text.
        events: The types of the data, by the names of events.

    Raises:
        ConfigurationError: a type is none that data can become.
    """

    def __init__(self, decode: Decode, events: Mapping[str, Any]) -> None:
        self._decode = decode
        self._types = {name: _typed(kind) for name, kind in events.items()}

    def __call__(self, decoded: DecodedEvent, now: float) -> Event:
        """Return the event.

        Raises:
            SseDecodeError: its data are not what was said.
        """
        raw = decoded.data
        try:
            data = self._data(decoded)
        except Exception as error:  # whatever a user's own function raises
            raise SseDecodeError(decoded) from error
        return Event(
            decoded.type,
            data,
            decoded.id,
            decoded.last_event_id,
            raw,
            decoded.replayed,
            now,
            decoded.json,
        )

    def _data(self, decoded: DecodedEvent) -> Any:
        typed = self._types.get(decoded.type)
        if typed is not None:
            return typed(decoded.data)
        decode = self._decode
        if decode == "text" or (decode == "auto" and not decoded.json):
            return decoded.data
        if callable(decode):
            return decode(decoded.data)
        return json.loads(decoded.data)


def _typed(kind: Any) -> Callable[[str], Any]:
    own: Callable[[str], Any] | None = getattr(kind, "model_validate_json", None)
    try:
        return own or msgspec.json.Decoder(kind).decode
    except TypeError as error:
        raise ConfigurationError(f"events={{...: {kind!r}}}: {error}") from error
