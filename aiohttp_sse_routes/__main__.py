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
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


if __name__ == "__main__":
    sys.exit(main())
