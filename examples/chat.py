"""A chat: rooms with a history, which outlives the server, and a page.

    python examples/chat.py     and open http://localhost:8080 in two windows

Say something, stop the server, say something more, and start it again: both pages are
back by themselves, with all that was said, once. It is kept in the file chat.db, or in
the one that you name:

    python examples/chat.py /var/lib/chat/chat.db
"""

import sys
import time
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web

from aiohttp_sse_routes import Channels, SQLiteStore, get_sse, setup, sse_route

DATABASE = sys.argv[1] if len(sys.argv) > 1 else "chat.db"
WEEK = 7 * 24 * 3600
ROOM = "{room:[a-z0-9-]{1,40}}"


def channel(request: web.Request) -> str:
    return f"room:{request.match_info['room']}"


@sse_route(f"/rooms/{ROOM}/messages", name="room")
async def messages(request: web.Request) -> Channels:
    return Channels(channel(request), history=50)


async def say(request: web.Request) -> web.Response:
    try:
        said = await request.json()
        name, text = said["name"].strip(), said["text"].strip()
        if not 0 < len(name) <= 30 or not 0 < len(text) <= 1000:
            raise ValueError("too short, or too long")
        message = {"name": name, "text": text, "at": time.time()}
        # Sent again with the same key, because the answer was lost, it is said once.
        await get_sse(request).publish(
            channel(request), message, idempotency_key=said["key"]
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
    return web.Response(status=201)


@aiohttp_jinja2.template("chat.html")
async def page(request: web.Request) -> dict[str, str]:
    return {"room": request.match_info["room"]}


async def index(request: web.Request) -> web.Response:
    raise web.HTTPFound("/rooms/lobby")


app = web.Application(client_max_size=10_000)
aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(Path(__file__).parent))
app.router.add_get("/", index)
app.router.add_get(f"/rooms/{ROOM}", page)
app.router.add_post(f"/rooms/{ROOM}/messages", say)
setup(app, store=SQLiteStore(DATABASE, max_age=WEEK))

if __name__ == "__main__":
    web.run_app(app)
