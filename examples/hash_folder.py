"""A long job that survives its client: the SHA-256 of every file in a folder.

    python examples/hash_folder.py ~/Pictures
    curl -N http://localhost:8080/hash

Stop curl in the middle. The job goes on for a minute; come back within it, with the
last id that you saw, and the files hashed meanwhile are told first. When all is told
the stream ends for good: a browser does not ask again, and curl with the last id is
answered 204.
"""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from aiohttp_sse_routes import ServerSentEvent, setup, sse_route

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


def list_files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@sse_route("/hash", resume=60)
async def hash_folder(request: web.Request) -> AsyncIterator[ServerSentEvent]:
    files = await asyncio.to_thread(list_files)
    for number, path in enumerate(files, 1):
        digest = await asyncio.to_thread(hash_file, path)
        name = str(path.relative_to(FOLDER))
        progress = {"file": name, "sha256": digest, "number": number, "of": len(files)}
        yield ServerSentEvent(progress, event="file")
    yield ServerSentEvent({"files": len(files)}, event="done")


app = web.Application()
setup(app)

if __name__ == "__main__":
    web.run_app(app)
