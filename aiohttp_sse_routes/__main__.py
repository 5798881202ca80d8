"""The command line: ``python -m aiohttp_sse_routes``.

Law: a command is imported when it is run, so that ``--help`` costs nothing.
"""

from __future__ import annotations

__all__ = ("main",)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; return the exit status."""
    given = _parser().parse_args(arguments)
    status: int = given.run(given)
    return status


def _demo(given: argparse.Namespace) -> int:
    from .demo.serve import serve

    return serve(given.host, given.port, given.path, given.follow, given.data)


def _client(given: argparse.Namespace) -> int:
    from .write_client import write_client

    return write_client(given.application, given.out, check=given.check)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiohttp_sse_routes",
        description="Server-Sent Events for aiohttp that can be relied on.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="serve live streams and a chat room, and cut their connections",
        description=(
            "Serve a page with three live streams: this machine, a file as it grows, "
            "and a long job; and a chat room, which outlives the demo. The pages can "
            "cut their connections, to show that nothing is lost."
        ),
    )
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s)",
    )
    demo.add_argument(
        "--port",
        type=_port,
        default=8080,
        help="port to listen on, or the next that is free (default: %(default)s)",
    )
    demo.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        help="folder whose files the job hashes (default: the standard library)",
    )
    demo.add_argument(
        "--follow",
        type=Path,
        metavar="FILE",
        help="file that is followed as it grows (default: the demo's own log)",
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=(
            "file in which the chat is kept (default: demo-chat.db in a folder of the "
            "user's; the demo says where)"
        ),
    )
    demo.set_defaults(run=_demo)
    client = commands.add_parser(
        "client",
        help="write an application's JavaScript client to files, for bundlers",
        description=(
            "Write what the application serves below its prefix: the client, its "
            "types, and openapi.json where setup(schema=True) asks for it. The "
            "application is imported and not started."
        ),
    )
    client.add_argument(
        "application",
        metavar="MODULE:APP",
        help="the application, or a function that returns it",
    )
    client.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write to"
    )
    client.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 if the files there are others",
    )
    client.set_defaults(run=_client)
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


if __name__ == "__main__":
    sys.exit(main())
