"""HTTP: responses, connections, routes and pages."""

__all__ = ()
