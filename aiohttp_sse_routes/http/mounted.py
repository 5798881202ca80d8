"""The routes of ours that an application has, wherever in it they were mounted.

Law: what is asked is aiohttp's routers, at start, when all is mounted; nothing is kept
beside them.
"""

from __future__ import annotations

__all__ = ("Found", "Mounted", "all_apps", "find_routes")

from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import hdrs, web

from ..errors import ConfigurationError
from .endpoint import Endpoint
from .routes import SSERouteDef, endpoint_of


class Mounted(NamedTuple):
    """A route of ours in an application.

    Attributes:
        route: aiohttp's.
        definition: What was mounted there.
        endpoint: What serves it.
    """

    route: web.AbstractRoute
    definition: SSERouteDef
    endpoint: Endpoint


Found = Sequence[Mounted]
"""The routes of ours in an application and below, HEAD left out."""


def find_routes(app: web.Application) -> Found:
    """Return the routes of ours in *app* and in its sub-applications.

    Raises:
        ConfigurationError: one is mounted twice.
    """
    found: list[Mounted] = []
    seen: dict[SSERouteDef, tuple[Endpoint, str]] = {}
    for inner in all_apps(app):
        for resource in inner.router.resources():
            for route in resource:
                mark = endpoint_of(route)
                if mark is None or route.method == hdrs.METH_HEAD:
                    continue
                definition, endpoint = mark
                path = resource.canonical
                first = seen.setdefault(definition, (endpoint, path))
                if first[0] is not endpoint:
                    raise ConfigurationError(
                        f"{definition!r} is mounted twice, at {first[1]} and {path}: "
                        "make a table for each, or a route and a name for each"
                    )
                found.append(Mounted(route, *mark))
    return found


def all_apps(app: web.Application) -> list[web.Application]:
    """Return *app* and its sub-applications, the outer ones first."""
    apps = [app]
    for sub in app._subapps:  # noqa: SLF001 -- aiohttp has no other way down
        apps += all_apps(sub)
    return apps
