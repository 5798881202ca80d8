"""The store in a file of SQLite; its door is `store`."""

from __future__ import annotations

__all__ = ("SQLiteStore",)

from .store import SQLiteStore
