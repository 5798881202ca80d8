"""The import guard: each way a dependency can be wrong gives one error that helps.

Law: shadows are real files, old versions are the real wheels, and what must not run is
shown not to have run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile
from importlib import util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aiohttp_sse_routes import _requirements
from aiohttp_sse_routes._requirements import REQUIREMENTS, Requirement, check

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
GUARD = ROOT / "aiohttp_sse_routes" / "_requirements.py"
WHEELS = ("aiohttp==3.9.5", "aiohttp-sse==2.2.0")

# The two ways in: the guard alone, which shows what it does by itself, and the package,
# which shows that it is asked before any other import.
BY_PATH = f"""\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_requirements", {str(GUARD)!r})
sys.modules["_requirements"] = guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)
guard.check()
"""
BY_PACKAGE = "import aiohttp_sse_routes\n"

EXECUTED = "print('A SHADOW HAS RUN')\n"

ALL = " ".join(f"'{requirement}'" for requirement in REQUIREMENTS)

# A dependency that exists nowhere else, for the cases that need no real one.
NEEDED = Requirement("guarded", "guarded-dep", ">=2,<3")


def run(
    script: Path, *, path: Sequence[Path] = (), options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run *script* as a user would, *path* being before what is installed."""
    # Written for the child: nothing of the parent's path is to leak in.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, [*path, ROOT]))
    return subprocess.run(
        [sys.executable, *options, str(script)],
        capture_output=True,
        text=True,
        env=env,
        cwd=ROOT.anchor,
        timeout=30,
        check=False,
    )


def told(result: subprocess.CompletedProcess[str]) -> str:
    """Return the text of the one ImportError that *result* ended with."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "A SHADOW HAS RUN" not in result.stdout
    assert result.stderr.count("Traceback") == 1, result.stderr
    _, found, text = result.stderr.partition("\nImportError: ")
    assert found, result.stderr
    return text


def complaint(requirement: Requirement = NEEDED) -> str:
    """Return what the guard says about *requirement* in this process."""
    with pytest.raises(ImportError) as caught:
        check([requirement])
    assert requirement.module == caught.value.name
    return str(caught.value)


def package(folder: Path, text: str = "", *, name: str = "guarded") -> Path:
    """Write a package whose ``__init__`` is *text*, never to be run."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text + "\n" + EXECUTED)
    return folder


def metadata(
    folder: Path,
    version: str,
    *,
    name: str = "guarded-dep",
    editable: str | None = None,
) -> Path:
    """Write what an installer leaves beside a package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    if editable is not None:
        record = {"url": editable, "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(params=[BY_PATH, BY_PACKAGE], ids=["guard", "package"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's script, alone in its folder."""
    if request.param == BY_PACKAGE and not (GUARD.parent / "__init__.py").exists():
        pytest.skip("the package has no __init__ yet")
    script = tmp_path / "app" / "app.py"
    script.parent.mkdir()
    script.write_text(request.param)
    return script


@pytest.fixture(scope="session")
def old_wheels(pytestconfig: pytest.Config) -> Path:
    """A folder with releases that are too old, fetched once and kept by pytest."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("old-wheels") / "-".join(WHEELS)
    if folder.exists():
        return folder
    partial = folder.with_suffix(f".{os.getpid()}")
    # They are never imported, so any platform's will do, on any platform.
    command = (
        "pip install --quiet --no-deps --only-binary=:all: --python-version=3.11 "
        "--platform=manylinux2014_x86_64"
    )
    result = subprocess.run(
        [sys.executable, "-m", *command.split(), f"--target={partial}", *WHEELS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if result.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        reason = (result.stderr.strip() or "no word from pip").splitlines()[-1]
        pytest.skip(f"pip could not fetch {' and '.join(WHEELS)}: {reason}")
    partial.rename(folder)
    return folder


def test_bounds_are_those_of_the_project() -> None:
    """The bounds checked at import are those that pip is given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [str(r) for r in REQUIREMENTS]


def test_names_are_those_of_the_distributions() -> None:
    """Each module is the import name of the distribution it stands with."""
    for requirement in REQUIREMENTS:
        spec = util.find_spec(requirement.module)
        assert spec is not None
        assert _requirements._owner_version(requirement, spec) is not None


def test_what_is_right_passes_in_silence(app: Path) -> None:
    """With all dependencies in place nothing is raised, printed or warned of."""
    result = run(app, options=["-Werror"])
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


def test_the_guard_imports_no_dependency(tmp_path: Path) -> None:
    """The guard comes to its answer without importing what it asks about."""
    script = tmp_path / "app.py"
    names = {r.module for r in REQUIREMENTS}
    script.write_text(f"{BY_PATH}\nprint(sorted({names!r} & sys.modules.keys()))\n")
    assert run(script).stdout == "[]\n"


@pytest.mark.parametrize("module", [r.module for r in REQUIREMENTS])
def test_a_file_beside_the_script_is_named(app: Path, module: str) -> None:
    """A user's file with a dependency's name is named, and is not run."""
    shadow = app.with_name(f"{module}.py")
    shadow.write_text(EXECUTED)
    text = told(run(app))
    assert f"{shadow} shadows" in text
    assert "rename that file" in text
    assert "pip install" not in text


def test_a_script_that_shadows_itself_is_named(app: Path) -> None:
    """A script that is itself called aiohttp.py is told so."""
    shadow = app.rename(app.with_name("aiohttp.py"))
    assert f"{shadow} shadows aiohttp: rename that file" in told(run(shadow))


def test_a_folder_beside_the_script_is_named(app: Path) -> None:
    """A user's own package with a dependency's name is named, and is not run."""
    package(app.parent, name="aiohttp_jinja2")
    text = told(run(app))
    assert f"{app.parent / 'aiohttp_jinja2' / '__init__.py'} shadows" in text
    assert "rename that folder" in text


def test_a_folder_without_code_shadows_nothing(app: Path) -> None:
    """A folder of data with a dependency's name hides nothing, and passes."""
    app.with_name("msgspec").mkdir()
    assert run(app).returncode == 0


def test_a_shadow_imported_before_is_named(app: Path) -> None:
    """A shadow is named also where the script imported it first."""
    app.with_name("msgspec.py").write_text("")
    app.write_text("import msgspec\n" + app.read_text())
    assert f"{app.with_name('msgspec.py')} shadows msgspec" in told(run(app))


@pytest.mark.timeout(90)
def test_old_releases_are_named_with_the_command(app: Path, old_wheels: Path) -> None:
    """Real releases that are too old are named at once, and one command fixes them."""
    text = told(run(app, path=[old_wheels]))
    assert "aiohttp 3.9.5 is too old (aiohttp>=3.14 is needed)" in text
    assert str(old_wheels / "aiohttp" / "__init__.py") in text
    assert "aiohttp-sse 2.2.0 is too old (aiohttp-sse>=3,<4 is needed)" in text
    assert "pip install -U 'aiohttp>=3.14' 'aiohttp-sse>=3,<4'\n" in text
    assert text.count("\n  * ") == 2


def test_a_release_that_is_too_new_is_named(app: Path, tmp_path: Path) -> None:
    """The next major version of aiohttp-sse is refused, with the way back."""
    site = package(tmp_path / "site", '__version__ = "4.0"', name="aiohttp_sse")
    metadata(site, "4.0.0", name="aiohttp-sse")
    text = told(run(app, path=[site]))
    assert "aiohttp-sse 4.0.0 is too new (aiohttp-sse>=3,<4 is needed)" in text
    assert "pip install -U 'aiohttp-sse>=3,<4'" in text


def test_without_site_packages_all_is_missing(app: Path) -> None:
    """Under -S every dependency is named as missing, and why."""
    text = told(run(app, options=["-S"]))
    assert text.count("is not installed") == len(REQUIREMENTS)
    assert f"pip install -U {ALL}\n" in text
    assert sys.executable in text
    assert "-S, which leaves site-packages out" in text


@pytest.mark.timeout(90)
def test_all_kinds_of_trouble_are_told_at_once(app: Path, old_wheels: Path) -> None:
    """Shadowed, too old and missing dependencies stand in one error."""
    shadow = app.with_name("msgspec.py")
    shadow.write_text(EXECUTED)
    text = told(run(app, path=[old_wheels], options=["-S"]))
    found = re.findall(r"^  \* (.*?)(?:[:;(]| is needed)", text, re.MULTILINE)
    assert [
        "aiohttp 3.9.5 is too old ",
        "aiohttp-sse 2.2.0 is too old ",
        "aiohttp-jinja2 is not installed ",
        "jinja2 is not installed ",
        f"{shadow} shadows msgspec",
    ] == found
    assert "then msgspec>=0.20 is still to be installed" in text
    assert f"pip install -U {ALL}\n" in text


@pytest.mark.parametrize(
    ("version", "misfit"),
    [
        ("3.13.99", "old"),
        ("3.14", None),
        ("3.14.0", None),
        ("v3.14", None),
        ("3.14.5+local.1", None),
        ("3.14.0.post1", None),
        ("3.14.0a1", "old"),
        ("3.14rc1", "old"),
        ("3.14.dev0", "old"),
        ("3.15.0a0", None),
        ("3.15.0.dev3+gabc", None),
        ("3.100", None),
        ("4", "new"),
        ("4.0a1", "new"),
        ("10.1", "new"),
        ("0.0.0", "old"),
        ("unknown", None),
        (None, None),
    ],
)
def test_versions_are_compared_as_pep_440_says(
    version: str | None, misfit: str | None
) -> None:
    """Numbers are compared as numbers, and a pre-release comes before its release."""
    assert _requirements._misfit(version, ">=3.14,<4") == misfit


def test_a_missing_dependency_is_named() -> None:
    """What is nowhere to be found is to be installed."""
    assert "guarded-dep is not installed (guarded-dep>=2,<3 is needed)" in complaint()


def test_a_folder_without_code_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace folder, with nothing behind it, counts as not installed."""
    (tmp_path / "guarded").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert "guarded-dep is not installed" in complaint()


def test_a_shadow_of_an_old_release_tells_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release behind a shadow is judged as well, so that one round is enough."""
    monkeypatch.syspath_prepend(metadata(package(tmp_path / "site"), "1.5"))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "guarded.py").write_text(EXECUTED)
    monkeypatch.syspath_prepend(tmp_path / "app")
    text = complaint()
    assert "guarded.py shadows guarded-dep: rename that file" in text
    assert "then 1.5, which it hides, is too old" in text
    assert "pip install -U 'guarded-dep>=2,<3'" in text


def test_the_error_has_the_path_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error's fields say which module it is about, and where that was found."""
    shadow = tmp_path / "guarded.py"
    shadow.write_text(EXECUTED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        check([NEEDED, Requirement("nowhere", "nowhere", ">=1")])
    assert ("guarded", str(shadow)) == (caught.value.name, caught.value.path)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('__version__ = "2.4.1"', None),
        ("__version__: str = '2.4.1'", None),
        ('__version__ = version = "2.4.1"', None),
        ('__version__ = "1.9"', "1.9 is too old"),
        ("from ._version import __version__", "3.1 is too new"),
        ('__version__ = metadata.version("guarded-dep")', "3.1 is too new"),
        ("import json", "shadows"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_copy_without_metadata_tells_its_version_by_its_text(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    verdict: str | None,
    zipped: bool,
) -> None:
    """A vendored or zipped package is judged by the version it states."""
    site = package(tmp_path / "site", text)
    if "_version import" in text or "metadata" in text:
        (site / "guarded" / "_version.py").write_text('__version__ = "3.1"\n')
    if zipped:
        files = [p for p in site.rglob("*") if p.is_file()]
        with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(site))
        site = tmp_path / "site.zip"
    monkeypatch.syspath_prepend(site)
    if verdict is None:
        check([NEEDED])
    else:
        assert verdict in complaint()


def test_a_copy_that_states_no_version_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be told is let pass, for to refuse what works is worse."""
    site = package(tmp_path, "def __getattr__(name): ...  # makes __version__")
    monkeypatch.syspath_prepend(site)
    check([NEEDED])


def test_a_zip_with_metadata_is_judged_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel put on the path as it is counts as installed."""
    site = metadata(package(tmp_path / "site"), "1.2")
    shutil.make_archive(str(tmp_path / "dep"), "zip", site)
    monkeypatch.syspath_prepend(tmp_path / "dep.zip")
    assert "guarded-dep 1.2 is too old" in complaint()


def test_metadata_of_another_place_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is that of the copy which is imported, not the first one's."""
    monkeypatch.syspath_prepend(metadata(package(tmp_path / "used"), "2.3"))
    monkeypatch.syspath_prepend(metadata(tmp_path / "stale", "1.0"))
    check([NEEDED])


def test_metadata_without_a_version_fall_back_to_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an uninstall that failed has left does not stop the guard."""
    site = package(tmp_path, '__version__ = "1.1"')
    (site / "guarded_dep-1.1.dist-info").mkdir()
    (site / "guarded_dep-1.1.dist-info" / "METADATA").write_text("Name: guarded-dep\n")
    monkeypatch.syspath_prepend(site)
    assert "guarded-dep 1.1 is too old" in complaint()


@pytest.mark.parametrize(("version", "verdict"), [("2.0", None), ("1.0", "too old")])
def test_an_editable_install_is_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, verdict: str | None
) -> None:
    """A checkout installed as a link is judged by the metadata of the link."""
    source = package(tmp_path / "check out" / "src")
    site = metadata(
        tmp_path / "site", version, editable=(tmp_path / "check out").as_uri()
    )
    monkeypatch.syspath_prepend(source)
    monkeypatch.syspath_prepend(site)
    if verdict is None:
        check([NEEDED])
    else:
        assert verdict in complaint()


def test_a_shadow_of_an_editable_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder outside the linked checkout is not taken for it."""
    source = package(tmp_path / "checkout")
    monkeypatch.syspath_prepend(source)
    monkeypatch.syspath_prepend(
        metadata(tmp_path / "site", "2.0", editable=source.as_uri())
    )
    monkeypatch.syspath_prepend(package(tmp_path / "checkout-of-mine"))
    assert "shadows guarded-dep: rename that folder" in complaint()


def test_a_module_made_by_hand_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that a test or a documentation build has put in place is left be."""
    monkeypatch.setitem(sys.modules, "guarded", types.ModuleType("guarded"))
    check([NEEDED])


def test_a_module_of_another_finder_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that comes from no file, as a bundler's or a mock's, is left be."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> object:
            return ModuleSpec(name, None) if name == "guarded" else None

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    check([NEEDED])
