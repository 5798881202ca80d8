"""The plugin `tests.no_skips`: what CI counts as a failure.

Law: pytest is run as the Makefile runs it, on files written for the purpose.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MARKED = "import pytest\n@pytest.mark.skip(reason='no such browser')\ndef test(): ...\n"
CALLED = "import pytest\ndef test(): pytest.skip('no such browser')\n"
FIXTURE = (
    "import pytest\n"
    "@pytest.fixture\ndef browser(): pytest.skip('no such browser')\n"
    "def test(browser): ...\n"
)
MODULE = "import pytest\npytest.skip('no such browser', allow_module_level=True)\n"
EXPECTED = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test(): assert 0\n"


def run(
    folder: Path, text: str, ci: str | None, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run pytest over one file with *text*, and one with a test that passes."""
    (folder / "test_it.py").write_text(text)
    (folder / "test_other.py").write_text("def test(): ...\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    env = {k: v for k, v in os.environ.items() if k not in {"CI", "PYTEST_ADDOPTS"}}
    if ci is not None:
        env["CI"] = ci
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.no_skips"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(folder)],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        (MARKED, "1 passed, 1 error"),
        (CALLED, "1 failed, 1 passed"),
        (FIXTURE, "1 passed, 1 error"),
        (MODULE, "1 passed, 1 error"),
    ],
    ids=["marked", "called", "fixture", "module"],
)
def test_in_ci_a_skip_is_a_failure(tmp_path: Path, text: str, closing: str) -> None:
    """However a test skips itself, CI fails, says why, and runs the other tests."""
    result = run(tmp_path, text, "true")
    assert 1 == result.returncode, result.stdout + result.stderr
    assert closing in result.stdout.splitlines()[-1]
    assert "no such browser" in result.stdout
    assert "with CI=true a skipped test is a failure" in result.stdout


@pytest.mark.parametrize("text", [CALLED, MODULE], ids=["called", "module"])
def test_in_ci_so_it_is_in_several_processes(tmp_path: Path, text: str) -> None:
    """Those that share the tests out between them count alike."""
    result = run(tmp_path, text, "true", "-p", "xdist", "-n", "2")
    assert 1 == result.returncode, result.stdout + result.stderr
    assert "1 passed" in result.stdout.splitlines()[-1]
    assert "with CI=true a skipped test is a failure" in result.stdout


@pytest.mark.parametrize("ci", [None, "", "false"])
def test_elsewhere_a_skip_is_a_skip(tmp_path: Path, ci: str | None) -> None:
    """A developer without a browser has a green run that says what it left out."""
    result = run(tmp_path, CALLED, ci)
    assert 0 == result.returncode, result.stdout + result.stderr
    assert "1 passed, 1 skipped" in result.stdout.splitlines()[-1]
    assert "no such browser" in result.stdout


def test_in_ci_an_expected_failure_is_none(tmp_path: Path) -> None:
    """A test that is marked to fail has run, and is not taken for a skip."""
    result = run(tmp_path, EXPECTED, "true")
    assert 0 == result.returncode, result.stdout + result.stderr
    assert "1 passed, 1 xfailed" in result.stdout.splitlines()[-1]
