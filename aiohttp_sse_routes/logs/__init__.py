"""Logs: where events are kept, in order, until their bounds push them out."""

__all__ = ()
