"""Checks of what a user gives for one argument or option, whichever it is.

Law: what is wrong raises `ConfigurationError`, which says where, what was given, and
what is to be given in place of it. Nothing is changed, and nothing is called.
"""

from __future__ import annotations

__all__ = (
    "check_bool",
    "check_callable",
    "check_count",
    "check_dumps",
    "check_seconds",
)

import inspect
import math
from typing import Any

from .callables import function_of, takes_one
from .errors import ConfigurationError


def check_bool(where: str, value: Any) -> None:
    """Check that *value* is a bool."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{where}={value!r} must be True or False")


def check_count(where: str, value: Any, *, least: int = 0) -> None:
    """Check that *value* is an int of at least *least*."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(
            f"{where}={value!r} must be an int of at least {least}"
        )


def check_seconds(where: str, value: Any, *, positive: bool = False) -> None:
    """Check that *value* is a number of seconds."""
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not 0 <= value < math.inf
        or (positive and value == 0)
    ):
        least = "above 0" if positive else "at least 0"
        raise ConfigurationError(
            f"{where}={value!r} must be a number of seconds, {least}"
        )


def check_callable(where: str, value: Any, what: str = "the request") -> None:
    """Check that *value* is None, or a callable that takes one argument, *what*."""
    if value is None:
        return
    if not callable(value):
        raise ConfigurationError(f"{where}={value!r} must be a callable")
    function = function_of(value)
    name = getattr(value, "__qualname__", None) or repr(value)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{where}={name} is a generator, whose body would never run: write return "
            "or raise in place of yield"
        )
    if not takes_one(value):
        raise ConfigurationError(f"{where}={name} must take one argument, {what}")


def check_dumps(where: str, value: Any) -> None:
    """Check that *value* is None, or a function that makes JSON."""
    check_callable(where, value, what="the value")
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(
            f"{where}={value!r} is a coroutine function: events are encoded at once, "
            "make it a plain function"
        )
