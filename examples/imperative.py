"""The imperative form: a handler that sends by itself, here from two tasks.

    python examples/imperative.py
    curl -N http://localhost:8080/machine

This is aiohttp-sse's interface: code that uses it moves here by changing its import.
Nothing is replayed; use a generator wherever you can. When the client leaves, the next
`send` raises ConnectionResetError, which ends the task group and with it the handler.
"""

import asyncio
import json
import os
import shutil

from aiohttp import web

from aiohttp_sse_routes import EventSourceResponse, setup, sse_response


async def send_load(stream: EventSourceResponse) -> None:
    while True:
        await stream.send(json.dumps(os.getloadavg()), event="load")
        await asyncio.sleep(1)


async def send_disk(stream: EventSourceResponse) -> None:
    while True:
        await stream.send(json.dumps(shutil.disk_usage("/").free), event="free")
        await asyncio.sleep(10)


async def machine(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as stream, asyncio.TaskGroup() as tasks:
        tasks.create_task(send_load(stream))
        tasks.create_task(send_disk(stream))
    return stream


app = web.Application()
app.router.add_get("/machine", machine)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
