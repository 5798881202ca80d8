"""A handler that resumes by itself: the rows of an SQLite table, by their own ids.

    python examples/notes.py notes.db
    curl -N http://localhost:8080/notes
    curl -d "milk, bread" http://localhost:8080/notes

The id of an event is the id of its row, so that a client may come back after a week,
or after a restart of the server, and be given every row that it has not seen:

    curl -N -H "Last-Event-ID: 1" http://localhost:8080/notes
"""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing

from aiohttp import web

from aiohttp_sse_routes import ServerSentEvent, last_event_id, setup, sse_route

DATABASE = sys.argv[1] if len(sys.argv) > 1 else "notes.db"


def connect() -> sqlite3.Connection:
    db = sqlite3.connect(DATABASE)
    db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)")
    return db


def rows_after(place: int) -> list[tuple[int, str]]:
    with closing(connect()) as db:
        query = "SELECT id, text FROM notes WHERE id > ? ORDER BY id"
        return db.execute(query, [place]).fetchall()


def insert(text: str) -> None:
    with closing(connect()) as db, db:
        db.execute("INSERT INTO notes (text) VALUES (?)", [text])


@sse_route("/notes")
async def notes(request: web.Request) -> AsyncIterator[ServerSentEvent]:
    brought = last_event_id(request) or "0"
    if not (brought.isascii() and brought.isdigit()):
        raise web.HTTPBadRequest(text="the last event id is not one of ours")
    place = int(brought)
    while True:
        for row, text in await asyncio.to_thread(rows_after, place):
            yield ServerSentEvent(text, id=str(row))
            place = row
        await asyncio.sleep(0.5)  # any process may add rows


async def add_note(request: web.Request) -> web.Response:
    await asyncio.to_thread(insert, await request.text())
    return web.Response(status=201)


app = web.Application()
app.router.add_post("/notes", add_note)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
