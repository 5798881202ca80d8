"""What tools are told of an application: ``client.d.ts`` and ``openapi.json``.

Law: made of the routes that the client has, when it is first asked for, so that an
application that nobody asks starts no slower.
"""

from __future__ import annotations

__all__ = ("Document", "Documents")

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import jinja2

from .declarations import declarations
from .described import Described, Mounting, described
from .openapi import openapi


class Document(NamedTuple):
    """A file.

    Attributes:
        text: What is in it.
        hash: 16 hexadecimal digits, of the text.
    """

    text: str
    hash: str


class Documents:
    """The documents of the routes *mounted*.

    Args:
        mounted: The routes that the client has.
        public_prefix: What a proxy puts before the application's paths.
        loader: The loader of the user's templates, which are looked at first.
    """

    def __init__(
        self,
        mounted: Sequence[Mounting],
        public_prefix: str,
        loader: jinja2.BaseLoader | None,
    ) -> None:
        self._mounted = mounted
        self._public_prefix = public_prefix
        self._loader = loader

    @cached_property
    def declarations(self) -> Document:
        """``client.d.ts``."""
        return _document(declarations(self._described, self._loader))

    @cached_property
    def openapi(self) -> Document:
        """``openapi.json``."""
        content = openapi(self._described, public_prefix=self._public_prefix)
        return _document(json.dumps(content, indent=2) + "\n")

    @cached_property
    def _described(self) -> Described:
        return described(self._mounted)


def _document(text: str) -> Document:
    return Document(text, hashlib.sha256(text.encode()).hexdigest()[:16])
