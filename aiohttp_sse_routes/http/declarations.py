"""``client.d.ts``: the generated client as TypeScript sees it.

Law: values in, text out. The static part is a template, which no name of a type of the
user's can disturb: a type that is called as something there is given another name.
"""

from __future__ import annotations

__all__ = ("declarations",)

import re
from typing import Final

import jinja2

from ..schema.typescript import (
    TypeNames,
    comment,
    declaration,
    key,
    literal,
    type_of,
)
from .client_files import render_file
from .described import Described, DescribedRoute

_TEMPLATE: Final = "client.d.ts.j2"
_NO_CODE: Final = re.compile(r"/\*.*?\*/|//[^\n]*|\"[^\"]*\"", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z_$][\w$]*")
_INDENT: Final = "  "


def declarations(described: Described, loader: jinja2.BaseLoader | None = None) -> str:
    """Return ``client.d.ts``.

    Args:
        described: The routes of the client, and their types.
        loader: The loader of the user's templates, which are looked at first.
    """
    bare = render_file(_TEMPLATE, loader, routes=(), declarations=())
    names = TypeNames(
        described.components, frozenset(_WORD.findall(_NO_CODE.sub("", bare)))
    )
    routes = [_row(route, names) for route in described.routes]
    types = [
        declaration(names[name], schema, names.of)
        for name, schema in described.components.items()
    ]
    return render_file(_TEMPLATE, loader, routes=routes, declarations=types) + "\n"


def _row(route: DescribedRoute, names: TypeNames) -> dict[str, str]:
    method = "GET" if "GET" in route.methods else route.methods[0]
    said = route.doc.strip().splitlines()
    if said:
        said.append("")
    said.append(f"`{method} {route.path}`")
    said += [f"`{name}` matches `{p}`" for name, p in route.parameters.items() if p]
    return {
        "comment": comment(said, _INDENT),
        "key": key(route.name),
        "path": literal(route.path),
        "method": literal(method),
        "params": _params(route),
        "events": _events(route, names),
    }


def _params(route: DescribedRoute) -> str:
    return _braced([f"{key(name)}: Param" for name in route.parameters])


def _events(route: DescribedRoute, names: TypeNames) -> str:
    parts = [
        f"{key(name)}: {type_of(carried.value, names.of, _INDENT * 2)}"
        for name, carried in route.events.items()
    ]
    if route.others:
        parts.append("[type: string]: unknown")
    return _braced(parts)


def _braced(parts: list[str]) -> str:
    return f"{{ {'; '.join(parts)} }}" if parts else "{}"
