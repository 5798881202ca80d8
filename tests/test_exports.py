"""The names a module gives away: its ``__all__`` says all of them and nothing else.

Law: the modules are read, not imported, but for the package's face.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aiohttp_sse_routes"
MODULES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in MODULES]

each_module = pytest.mark.parametrize("path", MODULES, ids=IDS)


def body(path: Path) -> list[ast.stmt]:
    """Return a module's statements after its docstring and ``__future__`` import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    match tree.body[1:]:
        case [ast.ImportFrom(module="__future__"), *rest]:
            return rest
        case rest:
            return rest


def exported(path: Path) -> tuple[str, ...]:
    """Return a module's ``__all__``, which is to be a plain tuple."""
    for node in body(path):
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                assert isinstance(value, ast.Tuple), "__all__ is to be a tuple"
                return tuple(map(ast.literal_eval, value.elts))
    pytest.fail("the module has no __all__")


def bound(statements: list[ast.stmt]) -> set[str]:
    """Return the names that *statements* bind, also those under an ``if`` or a try."""
    names: set[str] = set()
    for node in statements:
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {a.asname or a.name.partition(".")[0] for a in aliases}
            case ast.Assign(targets=targets):
                flat = (n for target in targets for n in ast.walk(target))
                names |= {n.id for n in flat if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If(body=inner, orelse=other):
                names |= bound(inner) | bound(other)
            case ast.Try(body=inner, handlers=handlers, orelse=other):
                names |= bound(inner) | bound(other)
                names |= {n for handler in handlers for n in bound(handler.body)}
            case _:
                pass
    return names


def public(statements: list[ast.stmt]) -> set[str]:
    """Return the classes and functions defined here whose names are public."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {node.name for node in statements if isinstance(node, kinds)}
    return {name for name in defined if not name.startswith("_")}


@each_module
def test_all_stands_first_and_is_a_tuple(path: Path) -> None:
    """A reader meets the names a module is for before anything else of it."""
    exported(path)
    first = ast.unparse(body(path)[0])
    assert first.startswith("__all__ = "), f"__all__ is to stand before {first!r}"


@each_module
def test_all_is_complete(path: Path) -> None:
    """Each public class and function of a module is in its ``__all__``."""
    assert set() == public(body(path)) - set(exported(path))


@each_module
def test_all_tells_no_name_that_is_not_there(path: Path) -> None:
    """Each name in a module's ``__all__`` is bound in it, and stands there once."""
    names = exported(path)
    assert len(set(names)) == len(names)
    submodules = (
        {p.stem for p in path.parent.glob("*")} if path.stem == "__init__" else ()
    )
    assert set() == set(names) - bound(body(path)) - set(submodules)


def rank(name: str) -> tuple[int, str]:
    """Return a key that sorts constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_the_face_is_sorted_and_can_be_imported() -> None:
    """The package's own names are unique, in order, and all there."""
    package = importlib.import_module("aiohttp_sse_routes")
    names = list(package.__all__)
    assert sorted(set(names), key=rank) == names
    assert [] == [name for name in names if not hasattr(package, name)]
    assert [] == [name for name in names if name.startswith("_")]


def test_a_star_import_gives_the_face() -> None:
    """``from aiohttp_sse_routes import *`` binds the documented names alone."""
    package = importlib.import_module("aiohttp_sse_routes")
    space: dict[str, object] = {}
    exec("from aiohttp_sse_routes import *", space)
    assert set(package.__all__) == space.keys() - {"__builtins__"}
