"""A sub-application with a table of its own, below a prefix of its own.

    python examples/subapp.py
    curl -N http://localhost:8080/admin/requests
    curl http://localhost:8080/             (in between: the count goes up)

`setup` is called once, on the root application; it finds the tables of the
sub-applications when the application starts. A stream passes the middlewares of both.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from aiohttp_sse_routes import SSERouteTableDef, setup

ANSWERED = web.AppKey("answered", Counter[str])

routes = SSERouteTableDef()


@routes.sse_route("/requests")
async def requests(request: web.Request) -> AsyncIterator[Counter[str]]:
    answered = request.config_dict[ANSWERED]
    told = None
    while True:
        if told != answered:
            told = answered.copy()
            yield told
        await asyncio.sleep(0.1)


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    request.config_dict[ANSWERED][request.path] += 1
    return response


async def index(request: web.Request) -> web.Response:
    return web.Response(text="hello\n")


admin = web.Application()
admin.add_routes(routes)

app = web.Application(middlewares=[count])
app[ANSWERED] = Counter()
app.router.add_get("/", index)
app.add_subapp("/admin", admin)
setup(app)

if __name__ == "__main__":
    web.run_app(app)
