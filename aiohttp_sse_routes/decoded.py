"""One event as a client sees it.

Law: a value, which says what was in the stream and nothing of how it came; that it is
a replay makes no difference to what it is equal to.
"""

from __future__ import annotations

__all__ = ("DecodedEvent",)

from collections.abc import Callable
from json import loads
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

_Kind: TypeAlias = type[T]

_SHOWN: Final = 200


# Frozen dataclasses take ten times as long to make, most of what a short event costs.
class DecodedEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One event as a client sees it (HTML standard, 9.2.6).

    Attributes:
        type: The event's name; ``message`` where the stream gave none.
        data: Its ``data`` lines, joined by LF.
        id: The ``id`` that this block itself carried, or None. The empty string is an
            id too: it erases the last event ID.
        last_event_id: The last event ID string after this event: where a client that
            has handled it resumes.
        json: Whether the block had our mark, the field line ``json``: *data* was
            encoded as JSON by the server, so ``"123"`` is a string and ``123`` is not.
        replayed: Whether the server has marked it, by the field ``replay``, as one that
            was there before this response. It is the same event, and equal, if not.
    """

    type: str
    data: str
    id: str | None
    last_event_id: str
    json: bool
    replayed: bool = False

    # What was replayed is equal to what came live.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DecodedEvent):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, str | None, str, bool]:
        return self.type, self.data, self.id, self.last_event_id, self.json

    @property
    def value(self) -> Any:
        """What was sent: decoded where it has our mark, else the text as it is."""
        return loads(self.data) if self.json else self.data

    def parse(self, kind: _Kind[T]) -> T:
        """Return the text as a *kind*, read as JSON, whether it has our mark or not.

        Args:
            kind: A pydantic model, or what msgspec knows: a dataclass, an attrs class,
                a Struct, a TypedDict, ``list[int]``.

        Raises:
            ValueError: it is none; pydantic says so itself.
        """
        own: Callable[[str], T] | None = getattr(kind, "model_validate_json", None)
        if own is not None:
            return own(self.data)
        try:
            return msgspec.json.decode(self.data, type=kind)
        except msgspec.DecodeError as error:
            raise ValueError(f"{error}: {self!r}") from error

    def __repr__(self) -> str:
        data = self.data if self.json else repr(self.data)
        if len(data) > _SHOWN:
            data = f"{data[:_SHOWN]}... ({len(self.data)} characters)"
        own = f" id={self.id}" if self.id is not None else ""
        return f"<{self.type} {data}{own}>"
