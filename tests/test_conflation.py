"""The newest by key: what was passed over was replaced, and what was not is told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_sse_routes.logs.conflation import Latest


@settings(deadline=None)
@given(
    keys=st.lists(st.sampled_from([None, "a", "b", "c", "d"]), max_size=40),
    ring=st.integers(1, 10),
    max_events=st.integers(1, 5),
    place=st.integers(0, 40),
    lose=st.none() | st.integers(0, 40),
)
def test_who_is_given_the_newest_has_missed_no_key(
    keys: list[str | None],
    ring: int,
    max_events: int,
    place: int,
    lose: int | None,
) -> None:
    """The newest of each key is given, or else what was lost is told; and nothing more.

    The events with these keys have gone through a ring of so many.
    """
    latest = Latest(0, max_events=max_events, max_bytes=1 << 20)
    held: list[int] = []
    for seq, key in enumerate(keys, 1):
        held.append(seq)
        if key is not None:
            latest.add(seq, key)
        if len(held) > ring:
            latest.dropped(held[0], b"%d" % held.pop(0))
    if lose is not None:
        latest.lose(min(lose, held[0] - 1 if held else 0))
    newest = {key: seq for seq, key in enumerate(keys, 1)}
    beside = [seq for seq, _ in latest.between(place, len(keys))]
    in_ring = [seq for seq in held if seq > place and not latest.superseded(seq)]
    wanted = [
        seq
        for seq, key in enumerate(keys, 1)
        if seq > place and (key is None or newest[key] == seq)
    ]
    missing = [seq for seq in wanted if seq not in beside + in_ring]
    assert beside + in_ring == [seq for seq in wanted if seq not in missing]
    gone = [seq for seq in range(1, len(keys) + 1) if seq not in held]
    assert not set(beside) & set(held)
    assert set(missing) <= set(gone)
    # Told exactly: what is lost is something that would have been given.
    assert all(seq <= latest.lost for seq in missing)
    assert latest.lost in {0, *gone}
    assert latest.lost <= place or latest.lost in missing


def test_what_is_beside_the_ring_is_counted_and_bounded() -> None:
    """So many events and bytes are kept; those too many are lost, the oldest first."""
    latest = Latest(0, max_events=3, max_bytes=100)
    for seq in range(1, 6):
        latest.add(seq, f"k{seq}")
        latest.dropped(seq, b"x" * 30)
    assert (90, 3, 2) == (latest.nbytes, latest.oldest, latest.lost)
    latest.add(6, "k4")
    assert (60, 3) == (latest.nbytes, latest.oldest)
    latest.dropped(6, b"x" * 101)
    assert (0, None, 6) == (latest.nbytes, latest.oldest, latest.lost)


def test_what_is_lost_is_forgotten() -> None:
    """Keys that are never seen again take no memory for ever."""
    latest = Latest(0, max_events=3, max_bytes=100)
    for seq in range(1, 10_001):
        latest.add(seq, f"k{seq}")
        latest.dropped(seq, b"x")
    assert 3 == len(latest._newest) == len(latest._kept)
    assert not latest._keys


def test_an_event_without_a_key_has_no_newer_one() -> None:
    """Once it has left the ring it is lost: nothing stands in for it."""
    latest = Latest(4, max_events=3, max_bytes=100)
    assert 4 == latest.lost
    latest.add(5, "k")
    latest.dropped(5, b"x")
    assert 4 == latest.lost
    latest.dropped(6, b"y")
    assert 6 == latest.lost
    assert [(5, b"x")] == latest.between(0, 9)
    assert [] == latest.between(0, 4) == latest.between(5, 9)
