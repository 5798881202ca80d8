"""Streams: producers that append to logs, and readers at places in them."""

__all__ = ()
