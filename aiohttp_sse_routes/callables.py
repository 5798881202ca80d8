"""What a user gives to be called: a function, a method, a partial, an object.

Law: whatever it is wrapped in, what is told of it is told of the function that will
run. Nothing is called here.
"""

from __future__ import annotations

__all__ = ("function_of", "takes_one", "without_partials")

import functools
import inspect
from typing import Any


def function_of(value: Any) -> Any:
    """Return the function that runs when *value* is called; None if there is none.

    That is a partial's, and an object's ``__call__``.
    """
    value = without_partials(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return value
    return getattr(value, "__call__", None)  # noqa: B004 -- the function is asked for


def without_partials(value: Any) -> Any:
    """Return *value* without the partials around it."""
    while isinstance(value, functools.partial):
        value = value.func
    return value


def takes_one(value: Any) -> bool:
    """Return whether *value* can be called with one argument, as far as it says."""
    try:
        inspect.signature(value).bind(None)
    except TypeError:
        return False
    except ValueError:  # no signature to be had: a C function
        pass
    return True
