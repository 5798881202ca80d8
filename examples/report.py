"""A report by id: refused with 401 or 404 before the stream, where it has to be.

    python examples/report.py               (it prints a token)
    curl -i http://localhost:8080/report/modules                              (401)
    curl -i -H "Authorization: Bearer TOKEN" http://localhost:8080/report/cats     (404)
    curl -N -H "Authorization: Bearer TOKEN" http://localhost:8080/report/modules

The handler is a coroutine that returns an async generator. What the coroutine raises
is the answer; nothing has been sent by then.
"""

import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from aiohttp_sse_routes import setup, sse_route

TOKEN = secrets.token_urlsafe()


async def disk() -> AsyncIterator[dict[str, int]]:
    yield shutil.disk_usage("/")._asdict()


async def modules() -> AsyncIterator[dict[str, str | None]]:
    for name, module in sorted(sys.modules.items()):
        yield {"module": name, "file": getattr(module, "__file__", None)}


REPORTS = {"disk": disk, "modules": modules}


@sse_route("/report/{id}")
async def report(request: web.Request) -> AsyncIterator[Any]:
    given = request.headers.get("Authorization", "")
    if not secrets.compare_digest(given.encode(), f"Bearer {TOKEN}".encode()):
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
    found = REPORTS.get(request.match_info["id"])
    if found is None:
        raise web.HTTPNotFound
    return found()


app = web.Application()
setup(app)

if __name__ == "__main__":
    print("The token is", TOKEN)
    web.run_app(app)
