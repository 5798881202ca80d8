"""The command line: ``python -m aiohttp_sse_routes``.

Law: a command is imported when it is run, so that ``--help`` costs nothing.
"""

from __future__ import annotations

__all__ = ("main", "tail")

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        status: int = given.run(given)
    except KeyboardInterrupt:
        return 130  # while the command was still being imported
    return status


def tail() -> int:
    """Run ``tail`` with the arguments of the process: what ``sse-tail`` is."""
    return main(["tail", *sys.argv[1:]])


def _demo(given: argparse.Namespace) -> int:
    from .demo.serve import serve

    return serve(given.host, given.port, given.path, given.follow, given.data)


def _client(given: argparse.Namespace) -> int:
    from .write_client import write_client

    return write_client(given.application, given.out, check=given.check)


def _tail(given: argparse.Namespace) -> int:
    from .client.terminal import tail as follow

    return follow(
        given.url,
        as_json=given.json,
        names=given.event,
        since=given.since,
        headers=dict(given.header),
        state=given.state,
        colour=given.colour,
    )


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
    _add_tail(commands.add_parser)
    return parser


def _add_tail(add: Callable[..., argparse.ArgumentParser]) -> None:
    tail = add(
        "tail",
        help="follow a stream in the terminal",
        description=(
            "Write the events of a stream of any server, one a line. It reconnects and "
            "resumes until the stream ends."
        ),
    )
    tail.add_argument("url", metavar="URL", help="the stream's")
    tail.add_argument(
        "--json", action="store_true", help="write each event as a line of JSON"
    )
    tail.add_argument(
        "--event",
        action="append",
        default=[],
        metavar="NAME",
        help="write only events of this name; may be given again",
    )
    tail.add_argument("--since", metavar="ID", help="begin behind this event ID")
    tail.add_argument(
        "-H",
        "--header",
        action="append",
        type=_header,
        default=[],
        metavar="'NAME: VALUE'",
        help="send this header; may be given again",
    )
    tail.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep the place in this file, and go on from there the next time",
    )
    tail.add_argument(
        "--colour",
        "--color",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="colour the names of events (default: in a terminal, without NO_COLOR)",
    )
    tail.set_defaults(run=_tail)


def _header(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0\r\n]*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return found[1], found[2].strip()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


if __name__ == "__main__":
    sys.exit(main())
