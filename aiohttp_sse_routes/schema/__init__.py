"""What streams carry, told to machines: types of events, TypeScript, OpenAPI.

Law: values in, values and text out; no I/O, and nothing of aiohttp. Nothing here stops
an application from starting: what cannot be described is described as unknown.
"""

__all__ = ()
