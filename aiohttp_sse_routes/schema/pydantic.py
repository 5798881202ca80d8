"""Pydantic models as JSON Schema, by pydantic itself, as they are dumped here.

Law: pydantic is not imported; a model brings it. A component that two models share is
there once, and one that only has the name of another is renamed.
"""

from __future__ import annotations

__all__ = ("Models", "is_pydantic", "schema_of")

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

# Where a schema has schemas.
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS: Final = ("properties", "patternProperties")
_ONES: Final = ("additionalProperties", "items", "not", "propertyNames")


def is_pydantic(cls: type) -> bool:
    """Return whether objects of *cls* are dumped by pydantic."""
    return hasattr(cls, "__pydantic_serializer__") and hasattr(cls, "model_dump")


def schema_of(cls: Any, prefix: str) -> Schema:
    """Return the schema of what ``model_dump(mode="json")`` makes.

    Args:
        cls: The model.
        prefix: What stands before a component's name in a reference.
    """
    module = sys.modules["pydantic.json_schema"]

    class Dumped(module.GenerateJsonSchema):  # type: ignore[misc, name-defined]
        """A dump has all fields, those with defaults too, as serializers made them."""

        def field_is_required(self, field: Any, total: bool) -> bool:
            if field["type"] == "typed-dict-field":
                return bool(field.get("required", total))
            return field.get("serialization_exclude_if") is None

        def ser_schema(self, schema: Any) -> Any:
            found = super().ser_schema(schema)
            # A serializer that does not say what it returns: it may be anything.
            if found is None and schema["type"].startswith("function-"):
                return {}
            return found

    schema: Schema = cls.model_json_schema(
        by_alias=bool(cls.model_config.get("serialize_by_alias")),
        ref_template=prefix + "{model}",
        schema_generator=Dumped,
        mode="serialization",
    )
    return schema


class Models:
    """Puts models' schemas, and those they refer to, among an application's.

    Args:
        components: Those that there are.
        prefix: What stands before a component's name in a reference.
    """

    def __init__(self, components: dict[str, Schema], prefix: str) -> None:
        self._components = components
        self._prefix = prefix
        # By all that a schema is made of: its own name says too little.
        self._names: dict[str, str] = {}

    def add(self, schema: Schema, name: str, free: Callable[[str], str]) -> str:
        """Add *schema*, and return the name that it has.

        Args:
            schema: As `schema_of` gives it.
            name: Its name, if nothing else is called so.
            free: Returns a name that is free, for one that is wanted.
        """
        found = {key: value for key, value in schema.items() if key != "$defs"}
        every = dict(schema.get("$defs", {}))
        if "$ref" in found:
            # It refers to itself, and so is among the rest.
            name = found["$ref"].removeprefix(self._prefix)
        else:
            every[name] = found
        keys = {own: self._key(own, every) for own in every}
        new = [own for own in every if keys[own] not in self._names]
        for own in new:
            there = self._components.get(own)
            so_far = {other: self._names.get(keys[other], other) for other in every}
            # A class that is no model may have been described already.
            is_same = there is not None and there == self._plain(every[own], so_far)
            given = self._names[keys[own]] = own if is_same else free(own)
            self._components.setdefault(given, {})
        names = {own: self._names[keys[own]] for own in every}
        for own in new:
            self._components[names[own]] = self._plain(every[own], names)
        return names[name]

    def _key(self, name: str, every: Mapping[str, Schema]) -> str:
        """Return the schema *name* with all that it refers to, as text."""
        found: dict[str, Schema] = {}
        waiting = [name]
        while waiting:
            own = waiting.pop()
            if own in every and own not in found:
                found[own] = every[own]
                text = json.dumps(every[own])
                waiting += re.findall(re.escape(self._prefix) + r'([^"]+)"', text)
        return json.dumps([name, found], sort_keys=True)

    def _plain(self, schema: Any, names: Mapping[str, str]) -> Any:
        """Return *schema* with the names of here, and without titles and defaults."""
        if not isinstance(schema, dict):
            return schema
        found: Schema = {}
        for key, value in schema.items():
            if key in ("title", "default"):
                continue
            if key == "$ref":
                own = value.removeprefix(self._prefix)
                value = self._prefix + names.get(own, own)
            elif key in _LISTS:
                value = [self._plain(item, names) for item in value]
            elif key in _MAPS:
                value = {name: self._plain(item, names) for name, item in value.items()}
            elif key in _ONES:
                value = self._plain(value, names)
            found[key] = value
        return found
