"""The demo as a program: it finds a port, says where it is, and ends at Ctrl-C.

Law: the port that is said is the one that is listened on. What is wrong with the
arguments is said in a line, before anything is served.
"""

from __future__ import annotations

__all__ = ("default_data", "serve")

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Final

from aiohttp import web

from aiohttp_sse_routes import StoreError

from .app import create_app
from .tree import Tree

_TRIES: Final = 100

# Addresses that mean "all of them", and what a browser here calls them.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104


def default_data() -> Path:
    """Return the file in which the chat of this user is kept."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        if folder := os.environ.get(name):
            break
    else:
        folder = os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(folder, "aiohttp-sse-routes", "demo-chat.db")


def serve(
    host: str, port: int, path: Path | None, follow: Path | None, data: Path | None
) -> int:
    """Serve the demo until it is interrupted; return the exit status.

    Args:
        host: The address to listen on.
        port: The port; if it is taken, the next that is free. 0 for any.
        path: The folder that the job hashes; None for the standard library.
        follow: The file that is followed; None for the demo's own log.
        data: The file in which the chat is kept; None for `default_data`.
    """
    if path is not None and not path.is_dir():
        return _refuse(f"--path {path}: there is no such folder")
    if follow is not None and follow.exists() and not follow.is_file():
        return _refuse(f"--follow {follow}: this is no file that can grow")
    data = (data or default_data()).absolute()
    try:
        data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return _refuse(f"--data {data}: there can be no such file: {error}")
    try:
        listener = _listen(host, port)
    except (OSError, OverflowError) as error:
        return _refuse(f"cannot listen on {host} port {port}: {error}")
    tree = None if path is None else Tree(path.resolve())
    app = create_app(tree=tree, follow=follow, data=data)
    found = listener.getsockname()[1]

    def announce(_: str) -> None:
        if port not in (0, found):
            print(f"Port {port} is taken, so this is {found}.")
        name = _ANY.get(host, f"[{host}]" if ":" in host else host)
        print(f"The demo is at http://{name}:{found}/  (Ctrl-C ends it)")
        print(f"The chat room is kept in {data}", flush=True)

    try:
        web.run_app(app, sock=listener, print=announce, access_log=None)
    except StoreError as error:
        return _refuse(f"--data {data}: {error}")
    finally:
        listener.close()
    print("\nEnded.")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on *port*, or on the next that is free."""
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
    for candidate in range(port, min(port + _TRIES, 65535) + 1):
        try:
            return socket.create_server((host, candidate), family=family, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == port + _TRIES:
                raise
    raise OSError(errno.EADDRINUSE, f"so are all up to {port + _TRIES}")


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 2
