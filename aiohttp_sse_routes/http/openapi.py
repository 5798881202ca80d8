"""``openapi.json``: the routes as an OpenAPI 3.2 document.

Law: values in, a document out, which depends on nothing but the routes. An item of a
stream is an event as a parser has it: its data is a string, which says of itself that
it is JSON, and of what.
"""

from __future__ import annotations

__all__ = ("openapi",)

import hashlib
import json
from typing import Any, Final, get_args

from ..schema.events import DEFAULT_NAME
from ..schema.types import Carried, Schema
from ..streams.reader import GapReason
from .described import Described, DescribedRoute
from .script import EndReason, Resumed

# Operations that a path item has a place for; it has one for all others together.
_METHODS: Final = frozenset(("DELETE", "GET", "PATCH", "POST", "PUT", "QUERY"))
# No class of Python can be called so.
_CONTROL: Final = "sse-control-event"


def openapi(described: Described, *, public_prefix: str = "") -> dict[str, Any]:
    """Return the document.

    Args:
        described: The routes that are in it, and their types.
        public_prefix: What a proxy puts before the application's paths.
    """
    paths: dict[str, Any] = {}
    for route in described.routes:
        item = paths.setdefault(route.path, {})
        for method in route.methods:
            operation = _operation(route, method)
            if method in _METHODS:
                item[method.lower()] = operation
            else:
                item.setdefault("additionalOperations", {})[method] = operation
    schemas = dict(described.components)
    if any(route.control_events for route in described.routes):
        schemas[_CONTROL] = _control_events()
    content = {"paths": paths, "components": {"schemas": schemas}}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    document: dict[str, Any] = {
        "openapi": "3.2.0",
        "info": {"title": "Event streams", "version": digest[:16]},
    }
    if public_prefix:
        document["servers"] = [{"url": public_prefix}]
    return document | content


def _operation(route: DescribedRoute, method: str) -> dict[str, Any]:
    summary, _, rest = route.doc.partition("\n")
    name = route.name
    if len(route.methods) > 1:
        name += method.capitalize()
    parameters = [_parameter(*item) for item in route.parameters.items()]
    parameters.append(
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event that was received: go on there.",
            "schema": {"type": "string"},
        }
    )
    operation: dict[str, Any] = {"operationId": name}
    if summary:
        operation["summary"] = summary
    if rest.strip():
        operation["description"] = rest.strip()
    return operation | {"parameters": parameters, "responses": _responses(route)}


def _parameter(name: str, pattern: str) -> dict[str, Any]:
    parameter = {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
    }
    # Python's, and so no `pattern`, which is JavaScript's.
    return parameter | ({"description": f"Matches `{pattern}`."} if pattern else {})


def _responses(route: DescribedRoute) -> dict[str, Any]:
    content = {"text/event-stream": {"itemSchema": _item(route)}}
    responses: dict[str, Any] = {
        "200": {"description": "The event stream.", "content": content}
    }
    responses["204"] = {"description": "The stream has ended: do not come back."}
    return responses


def _item(route: DescribedRoute) -> Schema:
    kinds = [_event(name, carried) for name, carried in route.events.items()]
    if route.others:
        kinds.append({"properties": {"event": {"pattern": "^(?!sse-)"}}})
    if route.control_events:
        kinds.append({"$ref": f"#/components/schemas/{_CONTROL}"})
    return {
        "type": "object",
        "properties": {
            "data": {"type": "string"},
            "event": {"type": "string"},
            "id": {"type": "string"},
            "retry": {"type": "integer", "minimum": 0},
        },
        "required": ["data"],
        "oneOf": kinds or [{"not": {}}],
    }


def _event(name: str, carried: Carried) -> Schema:
    shape: Schema = {"properties": {"event": {"const": name}, "data": _data(carried)}}
    if name != DEFAULT_NAME:
        shape["required"] = ["event"]
    return shape


def _data(carried: Carried) -> Schema:
    if carried.json is None:
        return carried.text or {"type": "string"}
    json_text = _json(carried.json)
    return json_text if carried.text is None else {"anyOf": [carried.text, json_text]}


def _json(schema: Schema) -> Schema:
    return {"contentMediaType": "application/json", "contentSchema": schema}


def _control_events() -> Schema:
    events: dict[str, Schema] = {
        "sse-hello": {
            "heartbeat": {"type": "number"},
            "resumed": {"enum": [*get_args(Resumed)]},
        },
        "sse-gap": {
            "reason": {"enum": [*get_args(GapReason)]},
            "after": {"type": ["string", "null"]},
        },
        "sse-cursor": {},
        "sse-end": {"reason": {"enum": [*get_args(EndReason)]}},
        "sse-error": {"ref": {"type": "string"}},
        "sse-busy": {},
    }
    return {
        "description": "What a stream says beside its events.",
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    "event": {"const": name},
                    "data": _json({"type": "object", "properties": properties}),
                },
                "required": ["event", "data"],
            }
            for name, properties in events.items()
        ],
    }
