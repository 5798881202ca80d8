"""Cross-origin requests (Fetch standard, 3.2): off, but for origins that are listed.

Law: an origin is answered by its own name or not at all, never by ``*``; answers of
every status carry the headers, so that a client can tell a refusal from a failure.
"""

from __future__ import annotations

__all__ = ("answer_preflights", "sign_responses")

from collections.abc import Iterable, Sequence
from typing import Final

from aiohttp import hdrs, web

from .routes import endpoint_of

_ALLOWED: Final = "Authorization, Cache-Control, Content-Type, Last-Event-ID"
_EXPOSED: Final = "SSE-Resume, Retry-After"
_MAX_AGE: Final = "600"


def sign_responses(app: web.Application, origins: Sequence[str], prefix: str) -> None:
    """Let pages of *origins* read the streams of *app* and its sub-applications.

    The client's files below *prefix* too: a browser loads a module of another origin
    only so.
    """
    allowed = frozenset(origins)

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        stream = endpoint_of(request.match_info.route) is not None
        # The inspector is for its own origin alone.
        path = request.path.removeprefix(prefix)
        ours = path != request.path and path.startswith("/")
        if stream or (ours and path != "/" and not path.startswith("/inspector/")):
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
            _sign(request, response, allowed)

    app.on_response_prepare.append(on_prepare)


def answer_preflights(
    routes: Iterable[web.AbstractRoute], origins: Sequence[str]
) -> None:
    """Answer ``OPTIONS`` on the resources of *routes*, where nobody else does."""
    allowed = frozenset(origins)

    async def preflight(request: web.Request) -> web.StreamResponse:
        response = web.Response(status=204, headers={hdrs.VARY: hdrs.ORIGIN})
        if _sign(request, response, allowed):
            resource = request.match_info.route.resource
            assert resource is not None
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(
                sorted(methods[resource.canonical])
            )
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _ALLOWED
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _MAX_AGE
        return response

    # By path: the first resource of a path answers for all of it.
    methods: dict[str, set[str]] = {}
    for route in routes:
        resource = route.resource
        if not isinstance(resource, web.Resource):
            continue
        methods.setdefault(resource.canonical, set()).add(route.method)
        taken = {other.method for other in resource}
        if not taken & {hdrs.METH_OPTIONS, hdrs.METH_ANY}:
            resource.add_route(hdrs.METH_OPTIONS, preflight)


def _sign(
    request: web.Request, response: web.StreamResponse, allowed: frozenset[str]
) -> bool:
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or origin not in allowed:
        return False
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
    return True
