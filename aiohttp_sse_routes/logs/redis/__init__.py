"""The store in Redis; its door is `store`."""

from __future__ import annotations

__all__ = ("RedisStore",)

from .store import RedisStore
