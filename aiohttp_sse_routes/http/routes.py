"""Routes: what the decorator collects and ``app.add_routes`` takes.

Law: a decorator returns the function unchanged and only notes it; mounting is a step
of its own. A mistake is found where it is written, and the error names the function
and the fix. There is no state at import but the default table.
"""

from __future__ import annotations

__all__ = (
    "DEFAULT_TABLE",
    "SSERouteDef",
    "SSERouteTableDef",
    "endpoint_of",
    "sse_route",
)

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar, Unpack, overload

from aiohttp import hdrs, web

from ..callables import without_partials
from ..errors import ConfigurationError
from ..settings import Form, RouteOptions, RouteSettings
from .endpoint import Endpoint
from .forms import check_options, form_of
from .handler import Target, label_of, name_of

Handler = TypeVar("Handler", bound=Callable[..., Any])

_MARK: Final = "__sse_endpoint__"


class SSERouteDef(web.AbstractRouteDef):
    """A route without a decorator, as `aiohttp.web.get` is one.

    Args:
        path: The path, as aiohttp's router takes it; it begins with ``/``.
        handler: An async generator function, or a coroutine function that returns
            `Channels` or an async iterator; a bound method is one too.
        **options: See `sse_route`.

    Raises:
        ConfigurationError: the handler or an option is wrong.
    """

    __slots__ = ("form", "given", "handler", "path", "settings")

    def __init__(
        self,
        path: str,
        handler: Callable[..., Any],
        **options: Unpack[RouteOptions],
    ) -> None:
        label = label_of(handler) if callable(handler) else repr(handler)
        where = f"sse_route({path!r}) on {label}"
        _check_path(path, where)
        self.path = path
        self.handler = handler
        self.given = frozenset(options)
        self.settings = RouteSettings.checked(options, where)
        self.form: Form = form_of(handler, self.settings, where)
        check_options(handler, self.form, self.settings, self.given, where)

    @property
    def label(self) -> str:
        """The handler's name."""
        return label_of(self.handler)

    @property
    def doc(self) -> str:
        """The first line of the handler's docstring."""
        return (inspect.getdoc(without_partials(self.handler)) or "").partition("\n")[0]

    @property
    def name(self) -> str:
        """The route's name, else its handler's."""
        return name_of(self.handler, self.settings)

    def __repr__(self) -> str:
        methods = ",".join(self.settings.methods)
        return f"<SSERouteDef {methods} {self.path} -> {self.label}>"

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        """Add the route to *router*; aiohttp's ``add_routes`` calls it."""
        endpoint = Endpoint(Target(self.handler, self.form, self.settings, self.given))
        handler = functools.wraps(self.handler, updated=())(endpoint.handler())
        # aiohttp asks for a coroutine function, and would look through __wrapped__.
        del handler.__wrapped__
        setattr(handler, _MARK, (self, endpoint))
        self._check_free(router)
        resource = router.add_resource(self.path, name=self.settings.name)
        methods = self.settings.methods
        routes: list[web.AbstractRoute] = [
            resource.add_route(method, handler) for method in methods
        ]
        if hdrs.METH_GET in methods:
            routes.append(resource.add_route(hdrs.METH_HEAD, handler))
        return routes

    def _check_free(self, router: web.UrlDispatcher) -> None:
        for route in router.routes():
            found = endpoint_of(route)
            if found is None or route.resource is None:
                continue
            definition = found[0]
            if definition is self:
                raise ConfigurationError(
                    f"{self!r} is mounted twice: give its table to setup() or to "
                    "add_routes(), not to both"
                )
            same_path = _shape(definition.path) == _shape(self.path)
            if same_path and set(definition.settings.methods) & set(
                self.settings.methods
            ):
                raise ConfigurationError(
                    f"{self.label} and {definition.label} are both at {self.path!r}: "
                    "change the path of one"
                )
        if self.settings.name is not None and self.settings.name in router:
            raise ConfigurationError(
                f"{self.label}: the name {self.settings.name!r} is taken by another "
                "route, choose another name="
            )


class SSERouteTableDef(Sequence["SSERouteDef"]):
    """A table of routes that a decorator fills, as `aiohttp.web.RouteTableDef`.

    Give it to ``setup(app, routes=table)``, ``app.add_routes(table)`` or, on a
    sub-application, ``sub.add_routes(table)``.
    """

    def __init__(self) -> None:
        self._items: list[SSERouteDef] = []

    def __repr__(self) -> str:
        return f"<SSERouteTableDef count={len(self._items)}>"

    @overload
    def __getitem__(self, index: int) -> SSERouteDef: ...

    @overload
    def __getitem__(self, index: slice) -> list[SSERouteDef]: ...

    def __getitem__(self, index: int | slice) -> SSERouteDef | list[SSERouteDef]:
        return self._items[index]

    def __iter__(self) -> Iterator[SSERouteDef]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def sse_route(
        self, path: str, **options: Unpack[RouteOptions]
    ) -> Callable[[Handler], Handler]:
        """Add the decorated function to this table; see `aiohttp_sse_routes.sse_route`.

        Raises:
            ConfigurationError: the handler or an option is wrong.
        """

        def decorate(handler: Handler) -> Handler:
            self._items.append(SSERouteDef(path, handler, **options))
            return handler

        if callable(path):
            raise ConfigurationError(
                f"@sse_route on {label_of(path)} needs a path: write "
                "@sse_route('/path') in place of @sse_route"
            )
        return decorate


DEFAULT_TABLE: Final = SSERouteTableDef()
"""Where `sse_route` adds to, and what ``setup(app)`` mounts."""


def sse_route(
    path: str, **options: Unpack[RouteOptions]
) -> Callable[[Handler], Handler]:
    """Make an async generator an SSE endpoint.

    The function is added to the default table, which ``setup(app)`` mounts, and is
    returned unchanged.

    Args:
        path: The path, as aiohttp's router takes it.
        **options: The options of `aiohttp_sse_routes.settings.RouteSettings`.

    Raises:
        ConfigurationError: the handler or an option is wrong.
    """
    return DEFAULT_TABLE.sse_route(path, **options)


def endpoint_of(route: web.AbstractRoute) -> tuple[SSERouteDef, Endpoint] | None:
    """Return what was mounted at *route*, if it is one of ours."""
    found: tuple[SSERouteDef, Endpoint] | None = getattr(route.handler, _MARK, None)
    return found


def _check_path(path: Any, where: str) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(f"{where}: the path must be a str that begins '/'")
    try:
        web.UrlDispatcher().add_resource(path)
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None


def _shape(path: str) -> str:
    """Return *path* without its variables' names: what decides which requests match."""
    return re.sub(r"\{[_a-zA-Z]\w*", "{", path)


def _show_options(function: Callable[..., Any]) -> None:
    """Let ``help()`` and ``inspect.signature`` show each option with its default."""
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for name, field in RouteSettings.__dataclass_fields__.items()
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


_show_options(sse_route)
_show_options(SSERouteTableDef.sse_route)
