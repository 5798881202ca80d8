"""Publishing from a process that serves nothing: a script, a cron job, a task queue.

    python examples/two_workers.py
    curl -N http://localhost:8080/news
    python examples/publish_script.py news.db "closed on Sunday"

In place of the file it takes what the workers have: redis://localhost, for instance.
"""

import asyncio
import sys

from aiohttp_sse_routes import Publisher, RedisStore, SQLiteStore, Store

USAGE = "python examples/publish_script.py FILE-OR-REDIS-URL TEXT [TEXT...]"


def store_at(place: str) -> Store:
    # It waits for up to ten seconds where the store is away, and then says so.
    if "://" in place:
        return RedisStore(place, wait=10)
    return SQLiteStore(place, wait=10)


async def publish(place: str, texts: list[str]) -> list[str]:
    async with Publisher(store_at(place)) as publisher:
        # All of them, one behind another, or none.
        return await publisher.publish_many("news", [{"text": text} for text in texts])


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(f"usage: {USAGE}")
    # Code without a loop, such as a Celery task, runs one for what it publishes.
    cursors = asyncio.run(publish(sys.argv[1], sys.argv[2:]))
    print("\n".join(cursors))


if __name__ == "__main__":
    main()
