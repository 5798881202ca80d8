"""``pytest -n``: which tests stay together when several processes share them out.

Law: what is slow to start is started by one process alone, and its tests run there one
after another. Every other test, with all its cases, goes to whoever is free first.
"""

from __future__ import annotations

__all__ = ("Scheduler", "group_of")

from typing import Final

from xdist.scheduler import LoadScopeScheduling

WHOLE: Final = ("test_client_files.py", "test_requirements.py", "test_wheel.py")
"""Files whose tests share what is built, or fetched, once."""


def group_of(nodeid: str) -> str:
    """Return what the tests are called that the one at *nodeid* stays with."""
    file = nodeid.partition("::")[0].rpartition("/")[2]
    if file.startswith("test_browser"):
        # Not two at a time: each takes all of a processor now and then.
        return "browsers"
    return file if file in WHOLE else nodeid.partition("[")[0]


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests out by `group_of`, the largest groups first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
