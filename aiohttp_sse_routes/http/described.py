"""The routes of an application as machines are told of them.

Law: values only; what a route sends is read from ``events=`` and annotations, once, and
the client's types and the OpenAPI document are made of the same.
"""

from __future__ import annotations

__all__ = ("Described", "DescribedRoute", "Mounting", "described")

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..callables import function_of
from ..schema.events import events_of
from ..schema.types import Carried, Schema, Schemas
from ..settings import RouteSettings
from .routes import SSERouteDef

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
# What aiohttp matches a parameter by that has no expression of its own.
_SEGMENT: Final = "[^{}/]+"
_PIECE: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DescribedRoute:
    """A route, and what it sends.

    Attributes:
        name: Its name in the client.
        route_name: Its name in the application.
        path: Its canonical path, as ``/rooms/{room}``.
        parameters: The names in it, each with the regular expression that its value
            has to match, empty where it is any segment.
        methods: Its HTTP methods.
        doc: The handler's docstring.
        events: What each event's data is, by its name.
        others: Whether there may be events of other names.
        control_events: Whether it sends control events.
    """

    name: str
    route_name: str
    path: str
    parameters: Mapping[str, str]
    methods: tuple[str, ...]
    doc: str
    events: Mapping[str, Carried]
    others: bool
    control_events: bool


class Described(NamedTuple):
    """All routes, and the types that have names.

    Attributes:
        routes: The routes, in the order of their names.
        components: The types, in the order in which the routes refer to them.
    """

    routes: tuple[DescribedRoute, ...]
    components: Mapping[str, Schema]


class Mounting(NamedTuple):
    """What is known of a route where it is mounted.

    Attributes:
        name: Its name in the client.
        definition: What was mounted.
        settings: Its options, the application's defaults among them.
        path: Its canonical path.
        pattern: What aiohttp matches a path with parameters by.
    """

    name: str
    definition: SSERouteDef
    settings: RouteSettings
    path: str
    pattern: re.Pattern[str] | None


def described(mounted: Iterable[Mounting]) -> Described:
    """Return what there is to tell of *mounted*."""
    schemas = Schemas()
    routes = []
    for item in sorted(mounted, key=lambda item: item.name):
        definition = item.definition
        function = function_of(definition.handler)
        events = events_of(function, item.settings.events)
        carried = {name: schemas.carried(kinds) for name, kinds in events.named.items()}
        routes.append(
            DescribedRoute(
                name=item.name,
                route_name=definition.name,
                path=item.path,
                parameters=_parameters(item),
                methods=item.settings.methods,
                doc=inspect.getdoc(function) or "",
                events=carried,
                others=events.others,
                control_events=item.settings.control_events,
            )
        )
    return Described(tuple(routes), schemas.components)


def _parameters(item: Mounting) -> dict[str, str]:
    pattern = item.pattern.pattern if item.pattern is not None else ""
    found = {}
    for name in _PARAMETER.findall(item.path):
        _, _, rest = pattern.partition(f"(?P<{name}>")
        own = _up_to_its_end(rest)
        found[name] = "" if own == _SEGMENT else own
    return found


def _up_to_its_end(pattern: str) -> str:
    """Return *pattern* up to the bracket that closes the group in which it begins."""
    depth = 1
    for match in _PIECE.finditer(pattern):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if not depth:
            return pattern[: match.start()]
    return pattern
