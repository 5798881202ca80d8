"""Two workers behind one port, which share a store.

    python examples/two_workers.py            in two terminals, on the same port
    curl -N http://localhost:8080/news        in a third
    curl -d "good news" http://localhost:8080/news        a few times, in a fourth

The answers say which worker it was. Whoever follows gets it all, from whichever worker;
end the one that they are at, and a client that comes back goes on at the other.

The workers share a file, news.db. With Redis they may be on several hosts:

    STORE=redis://localhost python examples/two_workers.py

gunicorn starts both workers by itself:

    cd examples && gunicorn --config gunicorn.conf.py --workers 2 two_workers:app
"""

import os

from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    RedisStore,
    SQLiteStore,
    Store,
    get_sse,
    setup,
    sse_route,
)

STORE = os.environ.get("STORE", "news.db")
PORT = int(os.environ.get("PORT", "8080"))


def make_store() -> Store:
    if "://" in STORE:
        return RedisStore(STORE)
    return SQLiteStore(STORE)


@sse_route("/news")
async def news(request: web.Request) -> Channels:
    return Channels("news", history=10)


async def publish(request: web.Request) -> web.Response:
    text = await request.text()
    await get_sse(request).publish("news", {"text": text, "worker": os.getpid()})
    return web.Response(text=f"published by worker {os.getpid()}\n", status=201)


app = web.Application()
app.router.add_post("/news", publish)
setup(app, store=make_store())

if __name__ == "__main__":
    print("This is worker", os.getpid())
    web.run_app(app, port=PORT, reuse_port=True)
