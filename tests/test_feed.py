"""The feed of a shared run: its readers are places in one log."""

from __future__ import annotations

import asyncio
import itertools
import os
import random

import pytest

from aiohttp_sse_routes.logs.ring import Ring
from aiohttp_sse_routes.streams.ending import Ending
from aiohttp_sse_routes.streams.feed import Feed
from aiohttp_sse_routes.streams.reader import Standing
from aiohttp_sse_routes.streams.turns import Turns
from aiohttp_sse_routes.wire import encode

from .helpers import until
from .rooms import Gap, Sink

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


def feed_of(*, max_events: int) -> Feed:
    """Return a feed with a log of *max_events*."""
    seqs = itertools.count(1)
    return Feed(
        Ring(0, max_events=max_events, max_bytes=1 << 20),
        prefix="sse1.l.0123456789ab.",
        number=lambda: next(seqs),
        turns=Turns(),
    )


def check(sink: Sink, start: int, head: int) -> None:
    """Fail where *sink* was not given each event behind *start* once, or told."""
    place = start
    for item in sink.story:
        if isinstance(item, Gap):
            assert item.after == place, f"{item} at {place}"
            assert item.place > place, f"{item} is none"
            place = item.place
        else:
            assert item == (place + 1, str(place + 1)), f"{item} at {place}"
            place += 1
    assert place == head, f"it has come to {place} of {head}"


@pytest.mark.usefixtures("turns_that_are_short")
@pytest.mark.parametrize("number", range(10))
async def test_each_event_once_in_order_or_a_gap(number: int) -> None:
    """Whatever its readers do, and whatever a turn has time for, nothing is lost."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    rng = random.Random(f"{SEED} {number}")
    feed = feed_of(max_events=rng.choice([3, 30, 1000]))
    feed.ring.lost = "expired"
    here: list[Sink] = []
    starts: dict[Sink, int] = {}
    for _ in range(400):
        action = rng.random()
        if action < 0.5:
            for _ in range(rng.choice([1, 1, 2, 6])):
                feed.append(encode(str(feed.ring.head + 1)))
        elif action < 0.6:
            sink = Sink()
            starts[sink] = feed.delivered
            here.append(sink)
            feed.join(sink, feed.delivered)
        elif action < 0.7 and here:
            # It leaves where it is, and comes back there.
            sink = rng.choice(here)
            place = feed.place_of(sink)
            feed.leave(sink)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            sink.blocked = False
            feed.join(sink, place)
        elif here:
            sink = rng.choice(here)
            if sink.blocked:
                sink.room = rng.choice([None, 1, 2])
                sink.resumed()
            else:
                sink.room = 1
        if rng.random() < 0.4:
            await asyncio.sleep(0)
    for sink in here:
        sink.room = None
        if sink.blocked:
            sink.resumed()
    await until(lambda: all(feed.place_of(sink) == feed.ring.head for sink in here))
    for sink in here:
        assert sink.nbytes == sink.total
        check(sink, starts[sink], feed.ring.head)


@pytest.mark.usefixtures("turns_that_are_short")
async def test_the_end_is_told_behind_what_is_owed() -> None:
    """Who was not reached yet has the last event before it learns of the end."""
    feed = feed_of(max_events=10)
    sinks = [Sink() for _ in range(50)]
    for sink in sinks:
        feed.join(sink, 0)
    feed.append(encode("1"))
    feed.finish(Ending("finished"))
    await until(lambda: all(sink.ends for sink in sinks))
    assert all(["1"] == sink.data for sink in sinks)
    assert not any(sink.standing is Standing.LIVE for sink in sinks)
