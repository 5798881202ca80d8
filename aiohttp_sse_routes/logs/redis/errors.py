"""What Redis' errors mean for whoever publishes: one sentence with the cause in it.

Law: every error of Redis or of its client becomes a `StoreUnavailable`, whose text
says what to do; those that time does not heal are told from the others.
"""

from __future__ import annotations

__all__ = ("Unusable", "explained")

import re
import ssl
from typing import Final

from redis import exceptions

from ...errors import StoreUnavailable


class Unusable(StoreUnavailable):
    """It cannot work as it is configured: nothing heals it but somebody's doing.

    Attributes:
        code: Redis' word for it, as ``NOPERM``; may be empty.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


# Of the classes that redis-py makes of a code, which it takes off the text.
_CLASSES: Final[tuple[tuple[str, str], ...]] = (
    ("OutOfMemoryError", "OOM"),
    ("ReadOnlyError", "READONLY"),
    ("BusyLoadingError", "LOADING"),
    ("NoPermissionError", "NOPERM"),
    ("AuthenticationWrongNumberOfArgsError", "WRONGPASS"),
    ("AuthenticationError", "WRONGPASS"),
    ("MasterDownError", "MASTERDOWN"),
    ("ClusterDownError", "CLUSTERDOWN"),
    ("MovedError", "MOVED"),
)

_CODE: Final = re.compile(r"(?:^|[\s-])([A-Z]{3,}) ")

_MEANINGS: Final = {
    "OOM": "it is out of memory: raise maxmemory, or lower max_events, max_age or "
    "max_bytes",
    "READONLY": "it is a read-only replica: the URL has to lead to the master",
    "LOADING": "it is loading its data",
    "MISCONF": "it takes no writes, for it cannot save to its disk (MISCONF)",
    "NOREPLICAS": "it takes no writes, for it has too few replicas (NOREPLICAS)",
    "MASTERDOWN": "it is a replica, and has lost its master",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "it is a node of a cluster that does not keep this log: choose the node, "
    "or a Redis without cluster",
    "BUSY": "it is busy with another's script (BUSY)",
    "WRONGTYPE": "its namespace holds keys of another kind: choose another namespace",
    "NOPERM": "its user may not do what is needed: allow all commands of +@read "
    "+@write +@scripting +@pubsub +@connection, +info and +time on the keys and "
    "the Pub/Sub channels of the namespace",
    "NOAUTH": "it asks for a password: put it into the URL, as in "
    "redis://:password@host",
    "WRONGPASS": "it refuses the user name or the password of the URL",
}

_HOPELESS: Final = frozenset({"MOVED", "NOAUTH", "NOPERM", "WRONGPASS", "WRONGTYPE"})


def _code(error: BaseException) -> str:
    text = str(error)
    if "uthentication required" in text:
        return "NOAUTH"
    if "user executing the script can't" in text:
        return "NOPERM"
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, code in _CLASSES:
        if name in names:
            return code
    found = [code for code in _CODE.findall(text) if code in _MEANINGS]
    return found[0] if found else ""


def _has(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether *error* is of this *kind*, or came from one that is."""
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def explained(error: BaseException, server: str) -> StoreUnavailable:
    """Return what is raised in place of *error*.

    Args:
        error: What Redis, its client or the network has raised.
        server: What the server is called, without a password.
    """
    if isinstance(error, StoreUnavailable):
        return error
    code = _code(error)
    if code:
        said = str(error).partition(" script: ")[0].rstrip(". ")
        text = f"Redis at {server}: {_MEANINGS[code]}; it said: {said}"
        return Unusable(text, code) if code in _HOPELESS else StoreUnavailable(text)
    if _has(error, ssl.SSLCertVerificationError):
        return Unusable(
            f"Redis at {server} shows a certificate that is not trusted: {error}; "
            "name its authority in the URL, as in ?ssl_ca_certs=/path/ca.pem"
        )
    if isinstance(error, exceptions.ResponseError):
        text = f"Redis at {server} refuses: {error}"
        return Unusable(text) if "DB index" in text else StoreUnavailable(text)
    if _has(error, TimeoutError):
        return StoreUnavailable(f"Redis at {server} does not answer")
    return StoreUnavailable(f"Redis at {server} cannot be reached: {error}")
