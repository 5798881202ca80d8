"""Which streams the generated client has on one connection, and over which tabs.

Law: what is one client's alone is never shared. So a coroutine handler, which may
return a private run, is shared only where its annotation or its ``share=`` says that it
returns channels.
"""

from __future__ import annotations

__all__ = ("ALL_TABS", "OWN", "SAME_SESSION", "SAME_TAB", "sharing_of")

from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs

from ..settings import Form, RouteSettings
from .handler import declared

OWN: Final = 0
"""A connection of its own: it is no GET, or would not survive that the others' is made
anew."""

SAME_TAB: Final = 1
"""A connection with the other streams of the tab."""

ALL_TABS: Final = 2
"""One stream, and one connection, for all tabs."""

SAME_SESSION: Final = 3
"""The same, for the tabs whose pages say that one and the same user is logged in."""


def sharing_of(handler: Callable[..., Any], form: Form, settings: RouteSettings) -> int:
    """Return what a stream of the route shares.

    Args:
        handler: The route's.
        form: What it is.
        settings: Its options.
    """
    if hdrs.METH_GET not in settings.methods or not settings.control_events:
        return OWN
    channels = form == "coroutine" and (
        settings.share or declared(handler) == "channels"
    )
    if form != "shared" and not channels:
        # A private run, or what may be one: does it outlive its connection?
        return SAME_TAB if settings.resume > 0 else OWN
    if settings.share is False:
        return SAME_TAB
    return ALL_TABS if settings.share or form == "shared" else SAME_SESSION
