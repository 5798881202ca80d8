"""The demo: ``python -m aiohttp_sse_routes demo``.

Law: it is a user of the package and of nothing inside it, and shows only what it has
measured, read or computed. Nothing is imported here, so that ``--help`` needs no web.
"""

from __future__ import annotations

__all__ = ()
