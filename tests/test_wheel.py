"""What is shipped: wheel and sdist hold the package whole, and it runs from them.

Law: the files are built and installed as users get them, in a folder of their own.
"""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# What git does not keep either.
NOT_COPIED = (
    ".*",
    "*.egg-info",
    "__pycache__",
    "_build",
    "build",
    "dist",
    "node_modules",
)

# The first test waits for the build.
pytestmark = pytest.mark.timeout(120)


class Built(NamedTuple):
    """The two files that an index gets."""

    wheel: Path
    sdist: Path

    def wheel_files(self) -> set[str]:
        """Return the names of the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def metadata(self) -> email.message.Message:
        """Return the wheel's metadata."""
        with zipfile.ZipFile(self.wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/METADATA"))
            return email.message_from_bytes(archive.read(name))


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command*, which is to succeed, and return what it printed."""
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert 0 == result.returncode, result.stdout + result.stderr
    return result.stdout


def shipped(folder: str) -> set[Path]:
    """Return the files under *folder* that are ours, relative to the project."""
    return {
        path.relative_to(ROOT)
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this checkout, and the wheel that is made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # A copy, for the backend leaves its notes beside the sources, and reads old ones.
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_COPIED))
    # Without isolation: the backend is here already, and need not be fetched.
    run(sys.executable, "-m", "build", "-n", "-o", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="session")
def fresh_python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's Python, with the wheel in it and the dependencies linked."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    names = {"base": str(folder), "platbase": str(folder)}
    python = Path(sysconfig.get_path("scripts", "venv", names)) / "python"
    site = Path(sysconfig.get_path("purelib", "venv", names))
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run(*pip, "install", "-q", "--no-deps", "--no-index", built.wheel, cwd=folder)
    # A path file adds the folder, but does not run the path files in it: an editable
    # install of this checkout does not come along.
    here = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(here + "\n")
    return python


def test_the_wheel_holds_every_file_of_the_package(built: Built) -> None:
    """No module, template, page or marker is left out, and nothing else is in."""
    plugin = "aiohttp_sse_routes/testing/pytest_plugin"
    package = {
        # The plugin is a package of its own, beside ours.
        path.as_posix().replace(plugin, "pytest_aiohttp_sse_routes")
        for path in shipped("aiohttp_sse_routes")
    }
    templates = {
        f"aiohttp_sse_routes/{path.as_posix()}" for path in shipped("templates")
    }
    files = {name for name in built.wheel_files() if ".dist-info/" not in name}
    assert package | templates == files


def test_the_wheel_says_that_it_is_typed(built: Built) -> None:
    """Type checkers of users find the marker of PEP 561."""
    assert "aiohttp_sse_routes/py.typed" in built.wheel_files()


def test_the_wheel_has_the_licence(built: Built) -> None:
    """The licence's text is where PEP 639 has it."""
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("licenses/LICENSE")]
        assert archive.read(name).decode() == (ROOT / "LICENSE").read_text()
    assert "Apache-2.0" == built.metadata()["License-Expression"]


def test_the_wheel_requires_what_the_guard_checks(built: Built) -> None:
    """Users' pip is given the bounds that are checked at import, and no more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    written = built.metadata().get_all("Requires-Dist", [])
    needed = [line.replace("<4,>=3", ">=3,<4") for line in written if ";" not in line]
    assert project["dependencies"] == needed
    extras = built.metadata().get_all("Provides-Extra", [])
    assert sorted(project["optional-dependencies"]) == sorted(extras)


def test_the_sdist_holds_what_its_wheel_was_built_from(built: Built) -> None:
    """The sdist has the sources, the templates beside them, the tests and the texts."""
    with tarfile.open(built.sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    sources = shipped("aiohttp_sse_routes") | shipped("templates")
    assert set() == {path.as_posix() for path in sources} - files
    texts = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml"}
    assert set() == texts - files
    assert "tests/test_wheel.py" in files
    assert [] == [name for name in files if "node_modules" in name or "_build" in name]


def test_the_wheel_runs_from_another_folder(fresh_python: Path, tmp_path: Path) -> None:
    """Every name of the package's face is there in a fresh environment."""
    code = (
        "import aiohttp_sse_routes as package\n"
        "assert all(hasattr(package, name) for name in package.__all__)\n"
        "print(package.__file__)\n"
    )
    # -P keeps the folder of this checkout out, whatever the test is started from.
    printed = run(fresh_python, "-P", "-Werror", "-c", code, cwd=tmp_path)
    assert Path(printed.strip()).is_relative_to(fresh_python.parents[1])


def test_the_templates_are_found_from_the_wheel(
    fresh_python: Path, tmp_path: Path
) -> None:
    """Jinja finds each template by the name of the mapped package."""
    code = (
        "import jinja2\n"
        "loader = jinja2.PackageLoader('aiohttp_sse_routes.templates', '')\n"
        "print(*loader.list_templates())\n"
    )
    found = set(run(fresh_python, "-P", "-c", code, cwd=tmp_path).split())
    templates = {p.relative_to("templates").as_posix() for p in shipped("templates")}
    assert templates - {"__init__.py"}, "there is no template"
    assert set() == templates - found


def test_the_command_line_runs_from_the_wheel(
    fresh_python: Path, tmp_path: Path
) -> None:
    """``python -m aiohttp_sse_routes`` says what it can do."""
    command = ["-P", "-m", "aiohttp_sse_routes", "--help"]
    assert "demo" in run(fresh_python, *command, cwd=tmp_path)


def test_the_pytest_plugin_is_found_from_the_wheel(
    fresh_python: Path, tmp_path: Path
) -> None:
    """Its fixtures are there without a word of configuration."""
    (tmp_path / "test_it.py").write_text(
        "import pytest_aiohttp_sse_routes as plugin\n"
        "def test(sse_clock):\n"
        "    print('from', plugin.__file__, sse_clock)\n"
    )
    printed = run(fresh_python, "-P", "-m", "pytest", "-sq", tmp_path, cwd=tmp_path)
    assert "1 passed" in printed
    assert f"from {fresh_python.parents[1]}" in printed
    assert "<SettableClock at 1000 s" in printed
