"""A pytest plugin: where CI=true, a test that is skipped has failed.

Law: nothing is hidden. On a developer's machine a missing browser or network skips a
test and says why; on the machine that decides on a change it has to be there.
"""

from __future__ import annotations

__all__ = ("NoSkips", "pytest_configure")

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    Report = pytest.TestReport | pytest.CollectReport


def _fail_if_skipped(report: Report) -> None:
    # An expected failure is reported as skipped too, and is none.
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr
    if isinstance(reason, tuple):
        path, line, text = reason
        reason = f"{path}:{line}: {text}"
    report.outcome = "failed"
    report.longrepr = f"{reason}\n(with CI=true a skipped test is a failure)"


class NoSkips:
    """The hooks that turn skips into failures."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Fail a test that skipped itself, or was marked."""
        report = yield
        _fail_if_skipped(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Fail a module that skipped itself."""
        report = yield
        _fail_if_skipped(report)
        return report


def pytest_configure(config: pytest.Config) -> None:
    """Take part where CI says so."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        # One module that cannot be collected does not hide what the others say.
        config.option.continue_on_collection_errors = True
        config.pluginmanager.register(NoSkips(), "no-skips")
