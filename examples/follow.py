"""A program that follows a stream, and goes on where it was when it is started again.

    python examples/clock.py
    python examples/follow.py http://localhost:8080/clock place.txt

End it and start it again: what came meanwhile comes first, if the server still has it.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp_sse_routes import ReplayGap
from aiohttp_sse_routes.client import SseError, StateInfo, connect

USAGE = "python examples/follow.py URL FILE"


def kept(place: Path) -> str:
    return place.read_text("utf-8") if place.exists() else ""


def keep(place: Path, last_event_id: str) -> None:
    place.write_text(last_event_id, "utf-8")


def tell(info: StateInfo) -> None:
    if info.state == "waiting":
        print(f"{info.reason}, again in {info.delay:.1f} s", file=sys.stderr)


async def follow(url: str, place: Path) -> None:
    begin = kept(place)
    async with connect(url, last_event_id=begin, ack="manual", on_state=tell) as stream:
        while True:
            try:
                async for event in stream:
                    print(event.type, event.data, flush=True)
                    # Only what was done is behind the place that is kept.
                    stream.ack(event)
                    keep(place, stream.last_event_id)
                return
            except ReplayGap as gap:
                print(f"events are lost: {gap.reason}", file=sys.stderr)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: {USAGE}")
    try:
        asyncio.run(follow(sys.argv[1], Path(sys.argv[2])))
    except SseError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
