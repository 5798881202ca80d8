"""JSON Schema as TypeScript: the part of it that `Schemas` makes.

Law: text of the user's reaches TypeScript as a string literal or within a comment, and
stays there. What is not known is ``unknown``, never ``any``.
"""

from __future__ import annotations

__all__ = ("TypeNames", "comment", "declaration", "key", "literal", "type_of")

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

Schema = Mapping[str, Any]
Ref = Callable[[str], str]

_SIMPLE: Final[Mapping[str, str]] = {
    "boolean": "boolean",
    "integer": "number",
    "null": "null",
    "number": "number",
    "string": "string",
}
# What a type cannot be called, and the properties' keys that need no quotes.
_KEYWORDS: Final = frozenset(
    """
    any as async await bigint boolean break case catch class const continue debugger
    declare default delete do else enum export extends false finally for from function
    get if implements import in infer instanceof interface is keyof let module namespace
    never new null number object of package private protected public readonly return set
    static string super switch symbol this throw true try type typeof undefined unique
    unknown var void while with yield
    """.split()  # noqa: SIM905 -- a table of words
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_SPLIT: Final = re.compile(r"(?<=\*)(?=/)")


class TypeNames:
    """The names of components in TypeScript.

    Args:
        components: Their names.
        taken: Names that mean something else there already.
        prefix: What stands before a component's name in a reference.
    """

    def __init__(
        self,
        components: Collection[str],
        taken: Collection[str],
        prefix: str = "#/components/schemas/",
    ) -> None:
        self._prefix = prefix
        self._names: dict[str, str] = {}
        used = {*taken, *_KEYWORDS, *components}
        for name in components:
            found = name
            if name in taken or name in _KEYWORDS or not _IDENTIFIER.fullmatch(name):
                found = re.sub(r"\W", "_", f"{name}Data", flags=re.ASCII)
                if not _IDENTIFIER.fullmatch(found):
                    found = "_" + found
                while found in used:
                    found += "_"
                used.add(found)
            self._names[name] = found

    def __getitem__(self, component: str) -> str:
        return self._names[component]

    def of(self, reference: str) -> str:
        """Return the name of what *reference* refers to."""
        return self._names.get(reference.removeprefix(self._prefix), "unknown")


def declaration(name: str, schema: Schema, ref: Ref) -> str:
    """Return the declaration of *schema* as the type *name*."""
    text = schema.get("description", "")
    head = comment([text] if text else [])
    shape = type_of({k: v for k, v in schema.items() if k != "description"}, ref)
    if shape.startswith("{") and "properties" in schema:
        return f"{head}export interface {name} {shape}"
    return f"{head}export type {name} = {shape};"


def type_of(schema: Schema | bool, ref: Ref, indent: str = "") -> str:
    """Return *schema* as a type.

    Args:
        schema: Where it is ``True`` or empty, the type is unknown.
        ref: Returns the name of what a reference refers to.
        indent: What stands before each line but the first.
    """
    if isinstance(schema, bool):
        return "unknown" if schema else "never"
    parts = [part for part in _parts(schema, ref, indent) if part != "unknown"]
    if len(parts) == 1:
        return parts[0]
    return " & ".join(map(_bracketed, parts)) if parts else "unknown"


def comment(lines: Sequence[str], indent: str = "") -> str:
    """Return *lines* as a documentation comment, with its line end; none for none."""
    text = [
        _SPLIT.sub(" ", part) for line in lines for part in line.splitlines() or [line]
    ]
    if not text:
        return ""
    if len(text) == 1:
        return f"{indent}/** {text[0]} */\n"
    body = "".join(f"{indent} * {line}".rstrip() + "\n" for line in text)
    return f"{indent}/**\n{body}{indent} */\n"


def literal(value: object) -> str:
    """Return a string, number, truth value or null as TypeScript writes it."""
    return json.dumps(value)


def key(name: str) -> str:
    """Return *name* as a property's key."""
    return name if _IDENTIFIER.fullmatch(name) else literal(name)


def _parts(schema: Schema, ref: Ref, indent: str) -> list[str]:
    """Return what *schema* asks for, all of which holds."""
    parts: list[str] = []
    if "$ref" in schema:
        parts.append(ref(schema["$ref"]))
    if "const" in schema:
        return [*parts, _value(schema["const"])]
    if "enum" in schema:
        return [*parts, _any_of(map(_value, schema["enum"]))]
    if schema.get("not") == {}:
        return ["never"]
    unions = [schema[word] for word in ("anyOf", "oneOf") if word in schema]
    parts += [_any_of(type_of(s, ref, indent) for s in union) for union in unions]
    if "allOf" in schema:
        parts += [type_of(part, ref, indent) for part in schema["allOf"]]
    kinds = schema.get("type", "object" if "properties" in schema else ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds:
        parts.append(_any_of(_of_kind(kind, schema, ref, indent) for kind in kinds))
    return parts


def _of_kind(kind: str, schema: Schema, ref: Ref, indent: str) -> str:
    if kind == "array":
        return _array(schema, ref, indent)
    if kind == "object":
        return _object(schema, ref, indent)
    return _SIMPLE.get(kind, "unknown")


def _array(schema: Schema, ref: Ref, indent: str) -> str:
    first = [type_of(item, ref, indent) for item in schema.get("prefixItems", ())]
    item = type_of(schema.get("items", True), ref, indent)
    rest = f"{_bracketed(item)}[]"
    if not first:
        return "[]" if schema.get("maxItems") == 0 else rest
    # More of them may come unless their number is said.
    is_fixed = schema.get("items") is False or schema.get("maxItems") == len(first)
    return f"[{', '.join(first if is_fixed else [*first, f'...{rest}'])}]"


def _object(schema: Schema, ref: Ref, indent: str) -> str:
    properties = schema.get("properties", {})
    more = schema.get("additionalProperties", not properties)
    if not properties:
        value = "never" if more is False else type_of(more, ref, indent)
        return f"{{ [key: string]: {value} }}"
    inner = indent + "  "
    required = schema.get("required", ())
    lines = []
    for name, value in properties.items():
        mark = "" if name in required else "?"
        lines.append(comment(_said_of(value), inner))
        lines.append(f"{inner}{key(name)}{mark}: {type_of(value, ref, inner)};\n")
    # A key of any other name: what fits all of them is unknown.
    if more is not False and "additionalProperties" in schema:
        lines.append(f"{inner}[key: string]: unknown;\n")
    return "{\n" + "".join(lines) + indent + "}"


def _said_of(schema: Schema | bool) -> list[str]:
    if isinstance(schema, bool):
        return []
    if "description" in schema:
        return [schema["description"]]
    form = schema.get("format") or schema.get("contentEncoding")
    return [str(form)] if form else []


def _value(value: object) -> str:
    if value is None or isinstance(value, (str, int, float)):
        return literal(value)
    return "unknown"


def _any_of(options: Iterable[str]) -> str:
    found = dict.fromkeys(options)
    return "unknown" if "unknown" in found else " | ".join(found)


def _bracketed(text: str) -> str:
    """Return the type *text* as it may stand before or behind an operator."""
    return f"({text})" if " | " in text or " & " in text else text
