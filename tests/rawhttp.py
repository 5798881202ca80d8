"""What came over a socket, taken apart: HTTP responses, chunks, blocks of a stream.

Law: nothing of the package is used here, so that its mistakes are not made twice.
"""

from __future__ import annotations

__all__ = ("RawResponse", "ask", "blocks_of", "check_law", "parse_response")

import json
import re
from typing import Any, NamedTuple

from multidict import CIMultiDict

from .helpers import RawClient, Served

Block = dict[str, str]
"""A block's fields; the lines of its data are joined by LF."""

OUR_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


class RawResponse(NamedTuple):
    """One response.

    Attributes:
        status: Its status.
        headers: Its headers.
        chunks: Its body, by chunks; one if it was not chunked.
        complete: Whether it came to its last chunk, or its length.
        rest: What came behind it.
    """

    status: int
    headers: CIMultiDict[str]
    chunks: list[bytes]
    complete: bool
    rest: bytes

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the body."""
        return blocks_of(self.body)

    def named(self, name: str) -> list[Block]:
        """Return the blocks of the events *name*."""
        return [block for block in self.blocks if block.get("event") == name]

    def data(self, name: str) -> Any:
        """Return the data of the one event *name*, decoded."""
        (block,) = self.named(name)
        return json.loads(block["data"])

    @property
    def events(self) -> list[str]:
        """The data of the events that are not ours."""
        return [
            block["data"]
            for block in self.blocks
            if "data" in block and not block.get("event", "").startswith("sse-")
        ]


def parse_response(data: bytes, *, head: bool = False) -> RawResponse:
    """Return the first response in *data*; *head* if the request was a HEAD."""
    top, mark, rest = data.partition(b"\r\n\r\n")
    assert mark, f"no whole header: {data!r}"
    first, *lines = top.decode().split("\r\n")
    status = int(first.split()[1])
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, _, value = line.partition(":")
        headers.add(name, value.strip())
    if head or status in (204, 304):
        return RawResponse(status, headers, [], True, rest)
    if "Content-Length" in headers:
        length = int(headers["Content-Length"])
        body, rest = rest[:length], rest[length:]
        return RawResponse(status, headers, [body], len(body) == length, rest)
    if headers.get("Transfer-Encoding") != "chunked":
        return RawResponse(status, headers, [rest], True, b"")
    chunks: list[bytes] = []
    while True:
        size, mark, after = rest.partition(b"\r\n")
        if not mark or len(after) < int(size, 16) + 2:
            return RawResponse(status, headers, chunks, False, rest)
        length = int(size, 16)
        assert b"\r\n" == after[length : length + 2], f"a broken chunk: {rest!r}"
        rest = after[length + 2 :]
        if not length:
            return RawResponse(status, headers, chunks, True, rest)
        chunks.append(after[:length])


def blocks_of(body: bytes) -> list[Block]:
    """Return the blocks of an event stream; the last must be whole."""
    assert body == b"" or body.endswith(b"\n\n"), f"an unfinished block: {body!r}"
    blocks = []
    for text in body.decode().split("\n\n")[:-1]:
        block: Block = {}
        for line in text.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            block[name] = f"{block[name]}\n{value}" if name in block else value
        blocks.append(block)
    return blocks


def check_law(body: bytes) -> None:
    """Assert that a body holds nothing on which browsers' engines disagree."""
    assert b"\0" not in body
    assert b"\r" not in body
    assert not body.startswith(b"\xef\xbb\xbf")
    for block in blocks_of(body):
        assert block.keys() <= {"", "id", "event", "retry", "json", "data", "replay"}
        if "retry" in block:
            assert re.fullmatch("[0-9]+", block["retry"])
            assert int(block["retry"]) >= 500
        if "id" in block:
            assert "data" in block, "an id without data does not move Firefox's place"
        name = block.get("event", "")
        if name.startswith("sse-"):
            assert "json" in block
            json.loads(block["data"])
            assert ("id" in block) == (name not in ("sse-busy", "sse-error"))


async def ask(
    served: Served,
    path: str,
    *headers: str,
    method: str = "GET",
    version: str = "1.1",
    body: bytes = b"",
    client: RawClient | None = None,
) -> RawResponse:
    """Return the whole response to a request; a stream's must end."""
    client = client or await RawClient.connect(served)
    client.received = b""
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    await client.send("\r\n".join([*lines, "", ""]).encode() + body)
    await client.read_until(b"\r\n\r\n")
    while True:
        response = parse_response(client.received, head=method == "HEAD")
        framed = {"Content-Length", "Transfer-Encoding"} & set(response.headers)
        if response.complete and (framed or not response.chunks):
            return response
        if not await client.read():
            response = parse_response(client.received, head=method == "HEAD")
            assert response.complete, f"cut off: {client.received!r}"
            return response
