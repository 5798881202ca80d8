"""How a producer ends, as its log's readers are told.

Law: a value; who is told what of it is decided where it is written to a client.
"""

from __future__ import annotations

__all__ = ("Ending",)

from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ending:
    """How a producer ended.

    Attributes:
        kind: ``finished``: it came to its end; ``failed``: it raised; ``reconnect``: it
            raised `Reconnect`; ``stopped``: it was told to stop.
        error: What it raised.
        after: Seconds, for ``reconnect``.
        ref: What a client is told of a failure, and the log says with it.
        refused: Whether coming back would not help, for ``failed``, where another
            process knows what was raised.
    """

    kind: Literal["finished", "failed", "reconnect", "stopped"]
    error: BaseException | None = None
    after: float = 0.0
    ref: str = field(default_factory=lambda: token_hex(4))
    refused: bool = False
