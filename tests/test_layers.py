"""The layers: a module imports from rows above its own, and no circle closes.

Law: all imports count, also those for types only, in functions, and by name.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
NAME = "aiohttp_sse_routes"


class Row(NamedTuple):
    """One layer: its modules, or packages with all that is in them, and its bans."""

    name: str
    modules: frozenset[str]
    banned: frozenset[str] = frozenset()


WEB = frozenset({"aiohttp", "aiohttp_jinja2", "aiohttp_sse", "jinja2"})
ROWS = (
    Row(
        "words",
        frozenset(
            {
                "_requirements",
                "callables",
                "checks",
                "errors",
                "naming",
                "settings",
                "templates",
            }
        ),
        WEB,
    ),
    Row(
        "pure",
        frozenset(
            {"cursor", "decoded", "decoder", "event", "lines", "serialize", "wire"}
        ),
        WEB | {"asyncio", "socket", "threading", "time"},
    ),
    Row("logs", frozenset({"logs"}), WEB),
    Row("streams", frozenset({"streams"}), WEB),
    Row("schema", frozenset({"schema"}), WEB | {"asyncio"}),
    Row("http", frozenset({"http"})),
    Row(
        "glue",
        frozenset(
            {
                "",
                "__main__",
                "arguments",
                "client",
                "demo",
                "face",
                "life",
                "metrics",
                "plugin",
                "publisher",
                "write_client",
            }
        ),
    ),
    # Below all: nothing of the package may need what is for tests.
    Row("testing", frozenset({"testing"})),
)


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name of the module in *path*."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts[0] == "templates":
        parts = (NAME, *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    """Return the text of each module that ships, by name."""
    files = [*(ROOT / NAME).rglob("*.py"), *(ROOT / "templates").rglob("*.py")]
    return {module_name(path): path.read_text(encoding="utf-8") for path in files}


SOURCES = sources()
PACKAGES = {module_name(p) for p in (ROOT / NAME).rglob("__init__.py")}


def imports(name: str, text: str, *, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything that a module imports, wherever it does."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function, argument = node.func, node.args[0]
            called = getattr(function, "attr", getattr(function, "id", None))
            if called in {"import_module", "__import__"}:
                assert isinstance(argument, ast.Constant), f"{name}: a computed import"
                assert isinstance(argument.value, str)
                yield argument.value


def ours(imported: str, modules: set[str]) -> str | None:
    """Return the module of ours that *imported* is, or is a name in."""
    if imported in modules:
        return imported
    outer = imported.rpartition(".")[0]
    return outer if outer in modules else None


def graph(texts: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """Return which modules of ours each module of ours imports."""
    modules = set(texts)
    edges: dict[str, set[str]] = {}
    for name, text in texts.items():
        found = imports(name, text, is_package=name in packages)
        edges[name] = {m for i in found if (m := ours(i, modules)) is not None}
    return edges


def row_of(module: str) -> int:
    """Return the number of a module's row, the words' being 0."""
    first = module.removeprefix(NAME).lstrip(".").partition(".")[0]
    for number, row in enumerate(ROWS):
        if first in row.modules:
            return number
    pytest.fail(f"{module} is in no row: say in ROWS of {__file__} where it belongs")


def store_of(module: str) -> str | None:
    """Return the name of the store that *module* is, or is a part of."""
    name = module.removeprefix(f"{NAME}.logs.").partition(".")[0]
    return name if name in {"memory", "redis", "sqlite"} else None


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Return the imports that break the order of the rows."""
    return [
        f"{module} ({ROWS[row_of(module)].name}) imports "
        f"{other} ({ROWS[row_of(other)].name})"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if row_of(other) > row_of(module)
    ]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports, none if there is no circle."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_upwards() -> None:
    """Each module imports from its own row and the rows above it only."""
    assert [] == upward(graph(SOURCES, PACKAGES))


def test_no_circle_closes() -> None:
    """The imports of the whole package can be put in an order."""
    assert [] == circle(graph(SOURCES, PACKAGES))


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_row_keeps_from_what_is_banned_there(module: str) -> None:
    """A module without I/O imports none, and one that knows no web imports no web."""
    found = imports(module, SOURCES[module], is_package=module in PACKAGES)
    assert set() == {i.partition(".")[0] for i in found} & ROWS[row_of(module)].banned


@pytest.mark.parametrize("module", [f"{NAME}._requirements", f"{NAME}.templates"])
def test_what_must_run_anywhere_imports_the_standard_library_only(module: str) -> None:
    """The guard speaks of missing dependencies, so it can have none."""
    found = imports(module, SOURCES[module], is_package=module in PACKAGES)
    assert {i.partition(".")[0] for i in found} <= sys.stdlib_module_names


def test_the_guard_comes_before_every_other_import() -> None:
    """The package asks for its dependencies before it imports a module that has any."""
    tree = ast.parse(SOURCES[NAME])
    code = [
        ast.unparse(node)
        for node in tree.body
        if not isinstance(node, ast.Assign | ast.Expr)
        or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
    ]
    assert [
        "from __future__ import annotations",
        "from . import _requirements",
        "_requirements.check()",
    ] == code[:3]


def test_one_store_does_not_know_another() -> None:
    """A store imports what stores have in common, and no store."""
    edges = graph(SOURCES, PACKAGES)
    stores = {m: store for m in edges if (store := store_of(m))}
    assert {"memory", "redis", "sqlite"} == {*stores.values()}
    assert [] == [
        (module, other)
        for module, store in stores.items()
        for other in edges[module]
        if stores.get(other, store) != store
    ]


@pytest.mark.parametrize(
    "text",
    [
        "from .http import routes",
        "from .http.routes import Route",
        "from . import http",
        "import aiohttp_sse_routes.http.routes",
        "from aiohttp_sse_routes import http",
        "if TYPE_CHECKING:\n    from .http.routes import Route",
        "def f():\n    from .http import routes",
        "import_module('aiohttp_sse_routes.http')",
    ],
)
def test_every_form_of_import_is_seen(text: str) -> None:
    """The check finds an upward import in whatever form it is written."""
    texts = {f"{NAME}.event": text, f"{NAME}.http": "", f"{NAME}.http.routes": ""}
    found = upward(graph({NAME: "", **texts}, {NAME, f"{NAME}.http"}))
    assert found
    assert all(line.startswith(f"{NAME}.event (pure) imports") for line in found)


def test_a_circle_is_seen() -> None:
    """The check finds a circle, also one that closes in a function."""
    texts = {
        f"{NAME}.wire": "from .event import E",
        f"{NAME}.event": "def f():\n    from . import wire",
    }
    assert {*texts} == set(circle(graph(texts, set())))
