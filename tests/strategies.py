"""What hypothesis draws from: event streams, chunkings, and events that can be sent.

Law: what is drawn here is valid where it says so; a test never has to filter it.
"""

from __future__ import annotations

__all__ = (
    "chunked",
    "comments",
    "cut_at",
    "events",
    "fields",
    "json_values",
    "streams",
)

import itertools

from hypothesis import strategies as st

from aiohttp_sse_routes.cursor import has_our_format
from aiohttp_sse_routes.event import RESERVED_PREFIX, ServerSentEvent

# Each token is one that some decoder in the field gets wrong; random bytes alone
# would hardly ever make an event.
_TOKENS = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"),
    *(b"data", b"data:", b"data: ", b"data:  ", b" data: ", b"Data: ", b"data : "),
    *(b"id", b"id:", b"id: ", b"event", b"event:", b"event: ", b"json", b"json: "),
    *(b"retry", b"retry:", b"retry: ", b"0", b"7", b"300", b"99999999999"),
    *(b":", b": ", b":comment", b" ", b"\t", b"\0", b"x", b"stream: "),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xc3\xa9", b"\xe2\x80\xa8"),
    *(b"\xc2\x85", b"\xf0\x9f\x8e\x89", b"\xf0\x9f", b"\xc0\x80", b"\xed\xa0\x80"),
    *(b"\xff", b"\x0b", b"\x0c", b"\x1c"),
)

streams = st.lists(
    st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=4)), max_size=40
).map(b"".join)
"""Bytes of which many are nearly an event stream."""


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    """Return *data* in the chunks that cuts at *places* make; some may be empty."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def chunked(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Return the strategy of all chunkings of *data*, empty chunks among them."""
    places = st.lists(st.integers(0, len(data)), max_size=12)
    every_byte = st.just([data[i : i + 1] for i in range(len(data))])
    return st.one_of(places.map(lambda drawn: cut_at(data, drawn)), every_byte)


# All that UTF-8 can carry, but for NUL, which is not sent.
_chars = st.characters(codec="utf-8", exclude_characters="\0")
_texts = st.text(_chars | st.sampled_from("\r\n \t:\ufeff\u2028\u0085"), max_size=30)

fields = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=12
).filter(lambda text: not text.startswith(RESERVED_PREFIX) and not has_our_format(text))
"""What may stand in ``event`` and ``id``."""

comments = _texts
"""What may stand in ``comment``."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3
        )
    ),
    max_leaves=8,
).filter(lambda value: value is not None and not isinstance(value, str))
"""What goes out as JSON: a ``str`` goes out as it is, and None sends no data."""

events = st.builds(
    ServerSentEvent,
    _texts | _texts.map(str.encode) | json_values | st.none(),
    event=fields | st.none(),
    id=fields | st.none(),
    retry=st.integers(0, 10**12) | st.none(),
    comment=comments | st.none(),
)
"""Events that can be sent, of every shape."""
