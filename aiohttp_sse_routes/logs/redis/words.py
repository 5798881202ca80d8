"""How an event, a message and the forks of a log are written in Redis.

Law: pure bytes in, values out; what is written here is read by every worker of every
version, so that a change of it is another namespace.
"""

from __future__ import annotations

__all__ = ("forks", "live", "understood", "written")

from ..entry import Draft, Entry


def live(message: bytes) -> tuple[str, list[Entry]] | None:
    """Return the generation and the entries of a heard message.

    None if it has none, and tells of something else that is to be looked at.
    """
    if not message.startswith(b"E"):
        return None
    line, _, rest = message.partition(b"\n")
    _, generation, number, before, size, *sizes = line.split(b" ")
    seq, prev, start = int(number), int(before), int(size)
    channel = rest[:start].decode()
    entries = []
    for length in sizes:
        stop = start + int(length)
        lines, key = understood(rest[start:stop])
        entries.append(Entry(seq, prev, channel, lines, key))
        prev, start = seq, stop
        seq += 1
    return generation.decode(), entries


def written(draft: Draft) -> bytes:
    """Return an event as it is kept in the log."""
    if draft.key is None:
        return b":" + draft.lines
    key = draft.key.encode()
    return b"%d:%b%b" % (len(key), key, draft.lines)


def understood(event: bytes) -> tuple[bytes, str | None]:
    """Return the lines and the key of an event as it is kept."""
    if event.startswith(b":"):
        return event[1:], None
    size, _, rest = event.partition(b":")
    return rest[int(size) :], rest[: int(size)].decode()


def forks(text: bytes) -> dict[str, int]:
    """Return the forks of a log as they are kept."""
    pairs = (fork.rpartition(":") for fork in text.decode().split())
    return {generation: int(number) for generation, _, number in pairs}
