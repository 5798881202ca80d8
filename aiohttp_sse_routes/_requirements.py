"""Tell in one error which dependencies are missing, too old, too new or shadowed.

Law: this module imports the standard library only and runs no code of a dependency,
so that a file which stands in a dependency's place is named before it is executed.
"""

from __future__ import annotations

__all__ = ("REQUIREMENTS", "Requirement", "check")

import importlib.machinery
import importlib.util
import json
import os
import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec


class Requirement(NamedTuple):
    """One dependency of this package.

    Attributes:
        module: The name by which it is imported.
        distribution: The name by which it is installed.
        bounds: Its version specifiers as in PEP 440, of the forms ``>=1.2`` and
            ``<4``, with a comma between them.
    """

    module: str
    distribution: str
    bounds: str

    def __str__(self) -> str:
        return f"{self.distribution}{self.bounds}"


# The same as in pyproject.toml, of which nothing is left in a vendored copy.
REQUIREMENTS = (
    Requirement("aiohttp", "aiohttp", ">=3.14"),
    Requirement("aiohttp_sse", "aiohttp-sse", ">=3,<4"),
    Requirement("aiohttp_jinja2", "aiohttp-jinja2", ">=1.6"),
    Requirement("jinja2", "jinja2", ">=3.1"),
    Requirement("msgspec", "msgspec", ">=0.20"),
)


class _Problem(NamedTuple):
    requirement: Requirement
    text: str
    install: bool  # whether pip has to do something about it
    path: str | None = None


def check(requirements: Iterable[Requirement] = REQUIREMENTS) -> None:
    """Make sure that each dependency is there, is itself, and is of a version we know.

    Args:
        requirements: What to look for.

    Raises:
        ImportError: At least one is not. The text names all that is wrong and the
            command that puts it right; ``name`` and ``path`` are the first one's.
    """
    problems = [p for r in requirements if (p := _problem(r)) is not None]
    if not problems:
        return
    lines = ["aiohttp-sse-routes cannot run with the dependencies found:"]
    lines += [f"  * {problem.text}" for problem in problems]
    quote = '"' if os.name == "nt" else "'"
    install = [f"{quote}{p.requirement}{quote}" for p in problems if p.install]
    if install:
        lines.append(f"For {sys.executable or 'this Python'} the command is:")
        lines.append(f"  pip install -U {' '.join(install)}")
    if sys.flags.no_site:
        lines.append("Python was started with -S, which leaves site-packages out.")
    first = problems[0]
    raise ImportError("\n".join(lines), name=first.requirement.module, path=first.path)


def _problem(requirement: Requirement) -> _Problem | None:
    """Return what is wrong with one dependency, None where nothing is."""
    module, distribution, bounds = requirement
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:
        # Only a module that somebody made and put into sys.modules has no spec.
        return None
    if spec is None or _is_bare_folder(spec):
        text = f"{distribution} is not installed ({requirement} is needed)"
        return _Problem(requirement, text, install=True)
    version = _owner_version(requirement, spec)
    if version is None:
        source = _source(spec)
        if _is_shadow(spec, source):
            return _shadow(requirement, spec)
        version = _written_version(spec, source)
    misfit = _misfit(version, bounds)
    if misfit is None:
        return None
    text = (
        f"{distribution} {version} is too {misfit} ({requirement} is needed): "
        f"{spec.origin}"
    )
    return _Problem(requirement, text, install=True, path=spec.origin)


def _shadow(requirement: Requirement, spec: ModuleSpec) -> _Problem:
    """Return the problem of a user's module that has the name of a dependency."""
    kind = "file" if spec.submodule_search_locations is None else "folder"
    text = f"{spec.origin} shadows {requirement.distribution}: rename that {kind}"
    try:
        behind = metadata.version(requirement.distribution)
    except metadata.PackageNotFoundError:
        text += f"; then {requirement} is still to be installed"
        return _Problem(requirement, text, install=True, path=spec.origin)
    misfit = _misfit(behind, requirement.bounds)
    if misfit is not None:
        text += f"; then {behind}, which it hides, is too {misfit}"
    return _Problem(requirement, text, install=misfit is not None, path=spec.origin)


def _is_bare_folder(spec: ModuleSpec) -> bool:
    """Tell a namespace package, which any folder without code is, from a real one."""
    return spec.origin is None and spec.submodule_search_locations is not None


def _is_shadow(spec: ModuleSpec, source: str | None) -> bool:
    """Tell a user's module from a copy of a dependency that has lost its metadata.

    Each of the dependencies is a package and tells its version.
    """
    if spec.origin is None:
        return False  # made by a finder of its own, as a mock or a bundler has
    if spec.submodule_search_locations is None:
        return True
    return source is not None and "__version__" not in source


def _owner_version(requirement: Requirement, spec: ModuleSpec) -> str | None:
    """Return the version of the installed distribution that *spec* belongs to."""
    places = {os.path.realpath(p) for p in spec.submodule_search_locations or ()}
    for candidate in metadata.distributions(name=requirement.distribution):
        home = os.path.realpath(str(candidate.locate_file(requirement.module)))
        if home in places or _is_editable(candidate, places):
            try:
                return candidate.version
            except KeyError:
                return None  # what is left of an uninstall that failed
    return None


def _is_editable(candidate: metadata.Distribution, places: set[str]) -> bool:
    """Tell whether *candidate* is installed as a link to a folder round *places*."""
    text = candidate.read_text("direct_url.json")  # PEP 610
    if text is None or not places:
        return False
    record = json.loads(text)
    if not record.get("dir_info", {}).get("editable"):
        return False
    # Slow to import, and hardly ever needed.
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    root = os.path.realpath(url2pathname(urlsplit(record["url"]).path))
    return all(place.startswith(root + os.sep) for place in places)


def _source(spec: ModuleSpec) -> str | None:
    """Return a module's text without running it, None where it has none to show."""
    get_source = getattr(spec.loader, "get_source", None)
    try:
        return None if get_source is None else get_source(spec.name)
    except (ImportError, OSError, SyntaxError):
        return None


def _written_version(spec: ModuleSpec, source: str | None) -> str | None:
    """Return the version that a package's text states, None if it is not plain."""
    assigned = re.compile(
        r"""^__version__\s*(?::[^=\n]*)?=[^"'\n]*["'](v?\d[^"'\n]*)""", re.MULTILINE
    )
    match = assigned.search(source or "")
    if match is None and spec.submodule_search_locations is not None:
        # Where build tools write it.
        name = f"{spec.name}._version"
        path = list(spec.submodule_search_locations)
        inner = importlib.machinery.PathFinder.find_spec(name, path)
        match = assigned.search((inner and _source(inner)) or "")
    return match and match[1]


def _misfit(version: str | None, bounds: str) -> str | None:
    """Return "old" or "new" where *version* is outside *bounds*.

    A version that cannot be read is let pass: to refuse what may work is the worse
    mistake.
    """
    found = _ordered(version or "")
    if found is None:
        return None
    for bound in bounds.split(","):
        limit = _ordered(bound.lstrip("<>="))
        assert limit is not None, bound
        if bound.startswith(">=") and found < limit:
            return "old"
        # 4.0a1 is before 4.0, yet PEP 440 has it outside <4, and so is its API.
        if bound.startswith("<") and found[0] >= limit[0]:
            return "new"
    return None


def _ordered(version: str) -> tuple[tuple[int, ...], bool] | None:
    """Return a key that sorts as PEP 440 does, a pre-release before its release."""
    match = re.match(
        r"v?(?:\d+!)?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|c|rc|pre|dev))?",
        version,
        re.IGNORECASE,
    )
    if match is None:
        return None
    release = [int(part) for part in match[1].split(".")]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release), match[2] is None
