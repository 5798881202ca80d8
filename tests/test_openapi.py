"""``openapi.json``: a document that others can read, and that is true of the streams.

Law: judged by a validator that is not ours; what is said of a stream is held against
the events that the stream has.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV32SpecValidator, validate

from aiohttp_sse_routes import ConfigurationError, SSERouteTableDef, setup
from aiohttp_sse_routes.http.script import RouteScript, busy

from .helpers import Served, app_of
from .typed import HALTED, PRICE, Halted, Price, typed_table

Serve = Callable[[web.Application], Awaitable[Served]]


async def document_of(served: Served) -> dict[str, Any]:
    """Return the document of what is served."""
    status, body = await served.get("/_sse/openapi.json")
    assert 200 == status
    found: dict[str, Any] = json.loads(body)
    return found


def item_schema(document: dict[str, Any], path: str, method: str = "get") -> Any:
    """Return the schema of an item of the stream at *path*."""
    response = document["paths"][path][method]["responses"]["200"]
    schema = response["content"]["text/event-stream"]["itemSchema"]
    return {**schema, "components": document["components"]}


def fits(item: dict[str, Any], schema: Any) -> bool:
    """Return whether an event fits what is said of the stream's items.

    Its data has to fit the schema of its content too, which a validator takes for a
    note, of the one alternative that it is.
    """
    if not jsonschema.Draft202012Validator(schema).is_valid(item):
        return False
    rest = {"components": schema["components"]}
    (kind,) = (
        kind
        for kind in _all_kinds(schema, schema["components"])
        if jsonschema.Draft202012Validator({**kind, **rest}).is_valid(item)
    )
    content = kind["properties"].get("data", {}).get("contentSchema", {})
    if not content:
        return True
    value = json.loads(item["data"])
    return bool(jsonschema.Draft202012Validator({**content, **rest}).is_valid(value))


def _all_kinds(schema: Any, components: Any) -> list[Any]:
    kinds = []
    for kind in schema["oneOf"]:
        if "$ref" in kind:
            name = kind["$ref"].rpartition("/")[2]
            kinds += components["schemas"][name]["oneOf"]
        else:
            kinds.append(kind)
    return kinds


@pytest.mark.parametrize("public_prefix", ["", "/app"])
async def test_it_is_openapi(serve: Serve, public_prefix: str) -> None:
    """It is a valid document of OpenAPI 3.2, each route in it but those kept out."""
    app = app_of(typed_table(), schema=True, public_prefix=public_prefix)
    document = await document_of(await serve(app))
    validate(document, cls=OpenAPIV32SpecValidator)
    assert "3.2.0" == document["openapi"]
    assert {
        "/market/{symbol}",
        "/rooms/{room}",
        "/levels",
        "/anything",
        "/files/{year}/{path}",
        "/quiet",
    } == document["paths"].keys()
    assert ([{"url": "/app"}] if public_prefix else None) == document.get("servers")


async def test_the_validator_finds_mistakes(serve: Serve) -> None:
    """What judges the document says no to one that is wrong."""
    document = await document_of(await serve(app_of(typed_table(), schema=True)))
    del document["paths"]["/market/{symbol}"]["get"]["parameters"][0]["in"]
    with pytest.raises(Exception, match="in"):
        validate(document, cls=OpenAPIV32SpecValidator)


async def test_an_operation(serve: Serve) -> None:
    """A route has its name, its docstring, its path's parameters and its methods."""
    document = await document_of(await serve(app_of(typed_table(), schema=True)))
    market = document["paths"]["/market/{symbol}"]["get"]
    assert "market" == market["operationId"]
    assert "Prices of one symbol." == market["summary"]
    assert "They are those of yesterday." == market["description"]
    names = [(p["name"], p["in"]) for p in market["parameters"]]
    assert [("symbol", "path"), ("Last-Event-ID", "header")] == names
    files = document["paths"]["/files/{year}/{path}"]["get"]["parameters"]
    said = [p.get("description") for p in files[:2]]
    assert [r"Matches `\d{4}`.", "Matches `.+`."] == said
    both = document["paths"]["/anything"]
    ids = {method: operation["operationId"] for method, operation in both.items()}
    assert {"get": "anythingGet", "post": "anythingPost"} == ids


async def test_a_method_of_ones_own(serve: Serve) -> None:
    """A method that OpenAPI has no place for is where it has one for the others."""
    table = SSERouteTableDef()

    @table.sse_route("/x", methods=("PURGE",))
    async def x(request: web.Request) -> AsyncIterator[int]:
        yield 1

    document = await document_of(await serve(app_of(table, schema=True)))
    validate(document, cls=OpenAPIV32SpecValidator)
    assert ["PURGE"] == list(document["paths"]["/x"]["additionalOperations"])


async def test_the_items_are_those_of_the_stream(serve: Serve) -> None:
    """Every event of a stream, the control events too, fits what is said of it."""
    table = SSERouteTableDef()

    @table.sse_route("/x", events={"price": Price, "halted": Halted})
    async def x(request: web.Request) -> AsyncIterator[Price | Halted | str | int]:
        for value in (PRICE, HALTED, "text", 5):
            yield value

    served = await serve(app_of(table, schema=True))
    schema = item_schema(await document_of(served), "/x")
    status, body = await served.get("/x")
    assert 200 == status
    items = items_of(body)
    names = ["sse-hello", "price", "halted", None, None, "sse-end"]
    assert names == [item.get("event") for item in items]
    for item in items:
        assert fits(item, schema), item
    price = next(item for item in items if item.get("event") == "price")
    assert not fits({**price, "event": "prise"}, schema)
    assert not fits({**price, "event": "halted"}, schema)
    assert not fits({**price, "data": '{"symbol": 1}'}, schema)
    assert not fits({"event": "price"}, schema)
    assert not fits({"event": "sse-gap", "data": '{"reason": "x"}'}, schema)


def items_of(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream as an item is described: by its fields."""
    items = []
    for block in body.decode().strip().split("\n\n"):
        lines = [line.partition(":") for line in block.split("\n")]
        item: dict[str, Any] = {
            name: value.removeprefix(" ")
            for name, _, value in lines
            if name in ("data", "event", "id", "retry")
        }
        if "retry" in item:
            item["retry"] = int(item["retry"])
        items.append(item)
    return items


async def test_every_control_event_is_there(serve: Serve) -> None:
    """All that a stream may say beside its events fits, with each of its reasons."""
    served = await serve(app_of(typed_table(), schema=True))
    schema = item_schema(await document_of(served), "/levels")
    script = RouteScript(retry=1000, heartbeat=15.0, control_events=True)
    blocks = [
        script.hello("x", "fresh"),
        script.hello("x", "gap"),
        script.gap_block("slow", None, "x"),
        script.gap_block("restarted", "sse1.l.0123456789ab.17", "x"),
        script.end_block("replaced", "x"),
        script.place_block("x"),
        script.failure("abc"),
        busy("limit", control_events=True),
    ]
    items = items_of(b"".join(blocks))
    assert 8 == len(items)
    for item in items:
        assert fits(item, schema), item


async def test_unknown_events(serve: Serve) -> None:
    """A route whose events are not known may have any but those of the package's own.

    And one without control events has none.
    """
    document = await document_of(await serve(app_of(typed_table(), schema=True)))
    anything = item_schema(document, "/anything")
    assert fits({"event": "own", "data": "x"}, anything)
    assert fits({"data": "x"}, anything)
    assert not fits({"event": "sse-else", "data": "x"}, anything)
    quiet = item_schema(document, "/quiet", "post")
    assert fits({"data": "{}"}, quiet)
    assert not fits({"event": "sse-hello", "data": "{}"}, quiet)


async def test_only_where_it_is_asked_for(serve: Serve) -> None:
    """Without ``schema=True`` there is no document, and another value is an error."""
    served = await serve(app_of(typed_table()))
    assert 404 == (await served.get("/_sse/openapi.json"))[0]
    with pytest.raises(ConfigurationError, match="schema=1 must be True or False"):
        setup(web.Application(), typed_table(), schema=1)  # type: ignore[arg-type]


async def test_served(serve: Serve) -> None:
    """It is there with an ETag, as JSON, at the prefix that the application chose."""
    served = await serve(app_of(typed_table(), schema=True, prefix="/events"))
    url = served.base + "/events/openapi.json"
    async with served.session.get(url) as response:
        assert (200, "application/json") == (response.status, response.content_type)
        tag = response.headers["ETag"]
    async with served.session.get(url, headers={"If-None-Match": tag}) as response:
        assert 304 == response.status
