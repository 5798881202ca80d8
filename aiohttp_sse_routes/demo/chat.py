"""The chat room of the demo: a stream of what is said, and the way to say something.

Law: what a visitor sends is text, of bounded length and at a bounded rate, and comes
out as it went in but for line ends and what steers a terminal. Each message has a
number of its sender's own, ``n``, so that a page can prove that none is missing and
none comes twice, over restarts of the server too. A message that is sent again, for
its answer was lost, is said once.
"""

from __future__ import annotations

__all__ = (
    "LONGEST_NAME",
    "LONGEST_TEXT",
    "ROOM",
    "Chat",
    "Message",
    "Pace",
    "Saying",
    "say",
    "setup_chat",
)

import math
import re
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web

from aiohttp_sse_routes import StoreUnavailable, get_sse

from .visitors import Visitors, check_origin

ROOM: Final = "demo:room"
"""The channel that it all goes through."""

LONGEST_TEXT: Final = 500
"""The most characters of a message."""

LONGEST_NAME: Final = 24
"""The most characters of a visitor's name."""

_BURST: Final = 8
_EVERY: Final = 0.5  # seconds a message, of one address in the long run
_ROOM_BURST: Final = 40
_ROOM_EVERY: Final = 0.05
_MOST_SENDERS: Final = 10_000


class Saying(msgspec.Struct, frozen=True):
    """What a visitor sends.

    Attributes:
        text: What is said.
        name: Who says it, as they like to be called.
        tab: Which of a visitor's tabs it is from; empty for who numbers nothing.
        n: The message's number in that tab, from 1.
    """

    text: Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
    name: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] = ""
    tab: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{0,16}$")] = ""
    n: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What all in the room are given.

    Attributes:
        n: The message's number of this sender, from 1; 0 if it is not numbered.
        sender: A visitor's tab, by a name that nobody else can have.
        name: What the visitor is called.
        text: What is said.
        at: When the server had it, in seconds since 1970.
    """

    n: int
    sender: str
    name: str
    text: str
    at: float


class Pace:
    """How often somebody may do something.

    Args:
        burst: How many times at once.
        every: Seconds a time, in the long run.
        now: What time it is.
    """

    def __init__(
        self, burst: int, every: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._slack = burst * every
        self._every = every
        self._now = now
        self._paid_until: dict[str, float] = {}

    def wait(self, who: str) -> float:
        """Return how many seconds *who* has to wait; if none, it has been done now."""
        now = self._now()
        if len(self._paid_until) > _MOST_SENDERS:
            self._paid_until = {k: t for k, t in self._paid_until.items() if t > now}
        until = max(self._paid_until.get(who, 0.0), now) + self._every
        if until - now > self._slack:
            return until - now - self._slack
        self._paid_until[who] = until
        return 0.0


class Chat:
    """What the server knows of those who speak.

    Args:
        visitors: Who is who.
        now: What time it is, for the pace.
    """

    def __init__(
        self, visitors: Visitors, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.visitors = visitors
        self._pace = Pace(_BURST, _EVERY, now)
        self._pace_of_all = Pace(_ROOM_BURST, _ROOM_EVERY, now)
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def check_pace(self, request: web.Request) -> None:
        """Let the request pass, or refuse it for a while.

        Raises:
            HTTPTooManyRequests: too many messages, of this address or of all.
        """
        # By address: a cookie is easily thrown away.
        wait = self._pace.wait(str(request.remote)) or self._pace_of_all.wait("")
        if wait:
            seconds = str(math.ceil(wait))
            raise web.HTTPTooManyRequests(
                text="too many messages\n", headers={hdrs.RETRY_AFTER: seconds}
            )

    def check_number(self, sender: str, n: int) -> None:
        """Check that *n* is the number of the sender's next message, or of its last.

        Of a sender that is not known, as after a restart, any number may be next.

        Raises:
            HTTPConflict: it is another.
        """
        last = self._numbers.get(sender)
        if n and last is not None and n not in (last, last + 1):
            raise web.HTTPConflict(text=f"the next number is {last + 1}, not {n}\n")

    def said(self, sender: str, n: int) -> None:
        """Note that *sender* has said its message number *n*."""
        self._numbers[sender] = n
        self._numbers.move_to_end(sender)
        if len(self._numbers) > _MOST_SENDERS:
            self._numbers.popitem(last=False)


_CHAT: Final = web.AppKey("chat", Chat)


def setup_chat(app: web.Application, chat: Chat) -> None:
    """Let visitors of *app* speak by a POST to the room's path."""
    app[_CHAT] = chat
    app.router.add_post("/room", say)


async def say(request: web.Request) -> web.Response:
    """Say something to all who are in the room."""
    chat = request.app[_CHAT]
    check_origin(request)
    chat.visitors.check(request)
    saying = await _read(request)
    visitor = chat.visitors.public_name(request)
    sender = f"{visitor}.{saying.tab}" if saying.tab else visitor
    chat.check_number(sender, saying.n)
    chat.check_pace(request)
    message = Message(
        saying.n, sender, _plain(saying.name) or "somebody", saying.text, time.time()
    )
    try:
        cursor = await get_sse(request).publish(
            ROOM, message, idempotency_key=f"{sender}.{saying.n}" if saying.n else None
        )
    except StoreUnavailable as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
    if saying.n:
        chat.said(sender, saying.n)
    return web.json_response({"id": cursor}, status=201)


async def _read(request: web.Request) -> Saying:
    # Of another type a page of another site could send it unasked.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="this takes application/json\n")
    try:
        saying = msgspec.json.decode(await request.read(), type=Saying)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
    text = _plain(saying.text)
    if not text:
        raise web.HTTPBadRequest(text="there is nothing in it\n")
    return msgspec.structs.replace(saying, text=text)


def _plain(text: str) -> str:
    """Return *text* in one line, without characters that steer."""
    kept = (
        char if char.isprintable() or unicodedata.category(char) == "Cf" else " "
        for char in text
    )
    return re.sub(r"\s+", " ", "".join(kept)).strip()
