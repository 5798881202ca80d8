"""``client.d.ts``: what TypeScript makes of it, and that it is true of the client.

Law: judged by ``tsc --strict``, on the file as it is served.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
import pytest
from aiohttp import web

from aiohttp_sse_routes import SSERouteTableDef
from aiohttp_sse_routes.schema.types import Schemas
from aiohttp_sse_routes.schema.typescript import (
    TypeNames,
    comment,
    declaration,
    type_of,
)
from aiohttp_sse_routes.serialize import serialize

from .helpers import Served, app_of
from .pages import Page, blocks_of
from .programs import default_table
from .typed import VALUES, typed_table

ROOT = Path(__file__).parents[1]
TSC = ROOT / "tests" / "browser" / "node_modules" / "typescript" / "bin" / "tsc"
USES = ROOT / "tests" / "ts" / "uses.ts"

Serve = Callable[[web.Application], Awaitable[Served]]

# One kind of server will do for what is only fetched from it.
once = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
needs_tsc = pytest.mark.skipif(
    shutil.which("node") is None or not TSC.exists(),
    reason="TypeScript is not installed (make node)",
)


def tsc(folder: Path, *files: str, **options: Any) -> list[str]:
    """Return the errors that TypeScript finds in *files*."""
    flags = {
        "allowJs": True,
        "checkJs": False,
        "exactOptionalPropertyTypes": True,
        "lib": ["es2022"],
        "module": "esnext",
        "moduleResolution": "bundler",
        "noEmit": True,
        # TypeScript's own declarations, which take longer than ours, are right.
        "skipDefaultLibCheck": True,
        "skipLibCheck": False,
        "strict": True,
        "target": "es2022",
        "types": [],
        **options,
    }
    config = {"compilerOptions": flags, "files": files}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        ["node", TSC, "--pretty", "false", "-p", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "" == done.stderr
    lines = done.stdout.splitlines()
    assert bool(lines) == bool(done.returncode), lines
    return lines


@pytest.fixture
def own_table() -> Iterator[None]:
    """Have an empty default table."""
    with default_table():
        yield


async def files_of(app: web.Application, serve: Serve, folder: Path) -> str:
    """Write the client of *app* to *folder*; return ``client.d.ts``."""
    served = await serve(app)
    for name in ("client.js", "client.d.ts"):
        status, body = await served.get(f"/_sse/{name}")
        assert 200 == status
        (folder / name).write_bytes(body)
    return (folder / "client.d.ts").read_text("utf-8")


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_uses(serve: Serve, tmp_path: Path) -> None:
    """Right uses pass; wrong events, parameters, options and properties do not."""
    await files_of(app_of(typed_table()), serve, tmp_path)
    shutil.copy(USES, tmp_path)
    assert [] == tsc(tmp_path, "uses.ts")


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_an_application_without_routes(serve: Serve, tmp_path: Path) -> None:
    """The static part stands by itself, also where nothing has a type."""
    table = SSERouteTableDef()

    @table.sse_route("/x", client=False)
    async def x(request: web.Request):  # type: ignore[no-untyped-def]
        yield 1

    await files_of(app_of(table), serve, tmp_path)
    (tmp_path / "use.ts").write_text(
        'import sse from "./client.js";\nsse.closeAll();\n'
        "// @ts-expect-error -- there is no route\nsse.x();\n"
    )
    assert [] == tsc(tmp_path, "use.ts")


NAMES = ("room", "delete", "default", "größe", "chat-room", "a.b:c", "class_")


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_names_of_routes(serve: Serve, tmp_path: Path) -> None:
    """Whatever name the client takes for a route, TypeScript takes."""
    table = SSERouteTableDef()

    async def handler(request: web.Request):  # type: ignore[no-untyped-def]
        yield 1

    for number, name in enumerate(NAMES):
        table.sse_route(f"/{number}", name=name)(handler)
    await files_of(app_of(table), serve, tmp_path)
    (tmp_path / "use.ts").write_text(
        'import sse from "./client.js";\n'
        "sse.room(); sse.delete(); sse.default(); sse.größe(); sse.chatRoom();"
        "sse.aBC(); sse.class_();\n",
        "utf-8",
    )
    assert [] == tsc(tmp_path, "use.ts")


NASTY = (
    "*/ } evil: { /*",
    '"; evil()',
    "a\\",
    "`${x}`",
    "//",
    "constructor",
    "__proto__",
    "\u2028",
    "größe",
    "💩",
)


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_nothing_gets_out_of_its_place(serve: Serve, tmp_path: Path) -> None:
    """Names of events and fields and docstrings stay what they are, whatever is in."""
    table = SSERouteTableDef()
    fields = [(name, int) for name in ("constructor", "__proto__", "class_", "größe")]
    kinds = {}
    for number, name in enumerate(NASTY):
        kind = make_dataclass(f"Kind{number}", fields)
        kind.__doc__ = f"It is {name}\n{name}"
        kinds[name] = kind

    async def handler(request: web.Request):  # type: ignore[no-untyped-def]
        yield 1

    handler.__doc__ = "\n".join(NASTY)
    table.sse_route("/x/{it:[^*/]*}", events=kinds)(handler)
    await files_of(app_of(table), serve, tmp_path)
    events = json.dumps([*NASTY])
    (tmp_path / "use.ts").write_text(
        'import sse from "./client.js";\n'
        f'sse.handler({{ it: "" }}).on({events}, (data) => data.größe.toFixed());\n'
        "// @ts-expect-error -- it has got nowhere\n"
        'sse.handler({ it: "" }).on("evil", () => {});\n',
        "utf-8",
    )
    assert [] == tsc(tmp_path, "use.ts")


TAKEN = ("Gap", "Promise", "State", "Client", "Routes", "Omit", "Window", "string")


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_classes_whose_names_are_taken(serve: Serve, tmp_path: Path) -> None:
    """A class that is called as something else there is given another name."""
    table = SSERouteTableDef()
    kinds = {name: make_dataclass(name, [("own", int)]) for name in (*TAKEN, "Größe")}

    @table.sse_route("/x", events=kinds)
    async def x(request: web.Request):  # type: ignore[no-untyped-def]
        yield 1

    text = await files_of(app_of(table), serve, tmp_path)
    (tmp_path / "use.ts").write_text(
        'import sse, { type Gap, type GapData, type PromiseData } from "./client.js";\n'
        "const stream = sse.x();\n"
        'stream.on("Gap", (data: GapData) => data.own);\n'
        'stream.on("Promise", (data: PromiseData) => data.own);\n'
        'stream.on(["string", "Größe"], (data) => data.own);\n'
        "stream.onGap((gap: Gap) => gap.reason);\n"
        "stream.closed.then((why) => why);\n",
        "utf-8",
    )
    assert [] == tsc(tmp_path, "use.ts")
    assert "Event" in text


@needs_tsc
@once
@pytest.mark.timeout(90)
async def test_it_is_true_of_the_client(serve: Serve, tmp_path: Path) -> None:
    """What the core's own types say of a stream is what is declared of it.

    And what the module exports is what is declared.
    """
    text = await files_of(app_of(typed_table()), serve, tmp_path)
    core = (ROOT / "templates" / "core.js").read_text("utf-8")
    # Whether the core is right in itself is for its own tests.
    core = core.replace("// @ts-check", "")
    (tmp_path / "core.js").write_text(f"{core}\nexport {{ createStream, SseError }};\n")
    (tmp_path / "same.ts").write_text(
        'import { createStream } from "./core.js";\n'
        'import type { Stream } from "./client.js";\n'
        "type Real = ReturnType<typeof createStream>;\n"
        "type Declared = Stream<{ [type: string]: any }>;\n"
        "declare const real: Real;\n"
        "const missing: Exclude<keyof Real, keyof Declared>[] = [];\n"
        "const more: Exclude<keyof Declared, keyof Real>[] = [];\n"
        "missing satisfies never[]; more satisfies never[];\n"
        'const info: Omit<Declared["info"], "error"> = real.info;\n'
        'const closed: Declared["closed"] = real.closed;\n'
        'const parameters: Parameters<Declared["on"]> extends Parameters<Real["on"]>\n'
        "  ? true : false = true;\n"
        'const next: Parameters<Declared["next"]> extends Parameters<Real["next"]>\n'
        "  ? true : false = true;\n"
        "export { closed, info, next, parameters };\n"
    )
    lib = ["es2022", "esnext.disposable", "dom"]
    assert [] == tsc(tmp_path, "same.ts", lib=lib, exactOptionalPropertyTypes=False)
    module = (tmp_path / "client.js").read_text("utf-8")
    assert {"createSse", "default"} < exported(module) == exported(text)
    typedef = re.search(r"@typedef {object} Options\b(.*?)\n \*\n", core, re.DOTALL)
    interface = re.search(r"interface Options [^{]*{\n(.*?)\n}", text, re.DOTALL)
    assert typedef is not None
    assert interface is not None
    known = re.findall(r"@property {(?:[^{}]|{[^}]*})*} \[(\w+)\]", typedef[1])
    # How the look-alike is made is nobody's option; what fetch takes is in RequestInit.
    ours = {*known} - {"tap", "credentials", "method"}
    assert ours == set(re.findall(r"^  (\w+)\?:", interface[1], re.MULTILINE))


def exported(text: str) -> set[str]:
    """Return the names of the values that a module exports."""
    one = r"^export (?:declare )?(?:const|class|function) (\w+)"
    found = set(re.findall(one, text, re.MULTILINE))
    several = r"^export (?:const )?\{([^}]*)\}"
    for names in re.findall(several, text, re.MULTILINE):
        found |= {name.strip() for name in names.split(",")}
    if re.search(r"^export default", text, re.MULTILINE):
        found.add("default")
    return found


@needs_tsc
@once
@pytest.mark.timeout(90)
@pytest.mark.usefixtures("own_table")
async def test_the_guide(serve: Serve, tmp_path: Path) -> None:
    """The uses that the guide shows are as it says, with the routes that it shows."""
    page = Page(ROOT / "docs" / "howto" / "typescript.md", serve)
    await page.run()
    (tmp_path / "sse").mkdir()
    for name in ("client.js", "client.d.ts"):
        _, body = await (await page.served()).get(f"/_sse/{name}")
        (tmp_path / "sse" / name).write_bytes(body)
    blocks = [b.text for b in blocks_of(page.path) if b.language == "ts"]
    assert 3 == len(blocks)
    (tmp_path / "guide.ts").write_text("\n".join(blocks), "utf-8")
    assert [] == tsc(tmp_path, "guide.ts")


@needs_tsc
@pytest.mark.timeout(90)
def test_values_are_of_the_types(tmp_path: Path) -> None:
    """What goes over the wire is a value of the type that TypeScript is told."""
    schemas = Schemas()
    shapes = [(schemas.of(kind), values) for kind, values in VALUES]
    names = TypeNames(schemas.components, ())
    lines = [
        declaration(names[name], schema, names.of)
        for name, schema in schemas.components.items()
    ]
    for number, (schema, values) in enumerate(shapes):
        for value in values:
            data, is_json = serialize(value)
            text = data.decode() if is_json else json.dumps(data.decode())
            kind = type_of(schema, names.of)
            lines.append(f"export const value{number}{len(lines)}: {kind} = {text};")
    (tmp_path / "values.ts").write_text("\n".join(lines), "utf-8")
    assert [] == tsc(tmp_path, "values.ts")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "unknown"),
        (True, "unknown"),
        (False, "never"),
        ({"not": {}}, "never"),
        ({"type": "integer"}, "number"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"const": None}, "null"),
        ({"enum": ["a", 1, True, "a"]}, '"a" | 1 | true'),
        ({"enum": [[1]]}, "unknown"),
        ({"anyOf": [{"type": "null"}, {}]}, "unknown"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "number"),
        ({"type": "array"}, "unknown[]"),
        ({"type": "array", "items": {"enum": [1, 2]}}, "(1 | 2)[]"),
        ({"type": "array", "maxItems": 0}, "[]"),
        ({"type": "array", "prefixItems": [{"type": "null"}]}, "[null, ...unknown[]]"),
        (
            {"type": "array", "prefixItems": [{"type": "null"}], "maxItems": 1},
            "[null]",
        ),
        ({"type": "object"}, "{ [key: string]: unknown }"),
        ({"type": "object", "additionalProperties": False}, "{ [key: string]: never }"),
        ({"allOf": [{"const": 1}, {"enum": [1, 2]}]}, "1 & (1 | 2)"),
        ({"$ref": "#/components/schemas/Other"}, "unknown"),
        ({"type": "future"}, "unknown"),
    ],
)
def test_schema_to_type(schema: Any, expected: str) -> None:
    """Each part of a schema has its type, and what is not known is unknown."""
    assert expected == type_of(schema, TypeNames((), ()).of)


def test_objects() -> None:
    """Properties that may be missing are marked, and others may be if that is said."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "format": "date"}, "b-c": {}},
        "required": ["a"],
        "additionalProperties": True,
    }
    assert (
        "export interface It {\n"
        "  /** date */\n"
        "  a: string;\n"
        '  "b-c"?: unknown;\n'
        "  [key: string]: unknown;\n"
        "}"
    ) == declaration("It", schema, TypeNames((), ()).of)


def test_comments() -> None:
    """A comment is one, whatever is in it."""
    assert "" == comment([])
    assert "/** a */\n" == comment(["a"])
    assert "  /**\n   * a\n   *\n   * * /b\n   */\n" == comment(["a\n\n*/b"], "  ")


@once
async def test_served(serve: Serve) -> None:
    """It is there with an ETag, and at an immutable URL of its content's hash."""
    served = await serve(app_of(typed_table()))
    url = served.base + "/_sse/client.d.ts"
    async with served.session.get(url) as response:
        assert 200 == response.status
        assert "application/typescript" == response.content_type
        assert "no-cache" == response.headers["Cache-Control"]
        text, tag = await response.text(), response.headers["ETag"]
    assert "export default sse" in text
    async with served.session.get(url, headers={"If-None-Match": tag}) as response:
        assert 304 == response.status
    hashed = served.base + f"/_sse/client-{tag.strip(chr(34))}.d.ts"
    async with served.session.get(hashed) as response:
        assert text == await response.text()
        assert "immutable" in response.headers["Cache-Control"]
    async with served.session.get(hashed.replace(tag[1:5], "0000")) as response:
        assert text == await response.text()
        assert "no-store" == response.headers["Cache-Control"]


@once
async def test_a_template_of_the_users(serve: Serve) -> None:
    """A template of the user's takes the place of ours, and is given the same."""
    app = app_of(typed_table())
    template = "{% for route in routes %}{{ route.key }} {% endfor %}"
    loader = jinja2.DictLoader({"sse_routes/client.d.ts.j2": template})
    aiohttp_jinja2.setup(app, loader=loader)
    status, body = await (await serve(app)).get("/_sse/client.d.ts")
    assert (200, b"allFiles anything levels market quiet room \n") == (status, body)
