"""The limits of one application: how many connections there are, and may be.

Law: what is counted is given back once, whoever gives it back, and however often. What
nobody has any more is not kept as a nought.
"""

from __future__ import annotations

__all__ = ("Limits", "Slot")

from collections import Counter
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Final

_ALL: Final = ("all",)
_NOTHING: Final[Mapping[Hashable, int]] = MappingProxyType({})


class Slot:
    """One connection, as the limits count it; nothing until it is admitted."""

    __slots__ = ("_counts", "_exceeded", "_keys")

    def __init__(self) -> None:
        self._counts: Counter[Hashable] | None = None
        self._keys: tuple[Hashable, ...] = ()
        self._exceeded = _NOTHING

    def take(
        self,
        counts: Counter[Hashable],
        keys: tuple[Hashable, ...],
        exceeded: Mapping[Hashable, int],
    ) -> None:
        """Count it in *counts* as *keys*, in spite of the limits *exceeded*, by key."""
        self._counts, self._keys, self._exceeded = counts, keys, exceeded
        for key in keys:
            counts[key] += 1

    @property
    def over(self) -> bool:
        """Whether there are now more connections than may be, with this one."""
        counts = self._counts
        return counts is not None and any(
            counts[key] > limit for key, limit in self._exceeded.items()
        )

    def release(self) -> None:
        """Give it back; twice is once."""
        counts, self._counts = self._counts, None
        if counts is None:
            return
        for key in self._keys:
            if counts[key] > 1:
                counts[key] -= 1
            else:
                del counts[key]


class Limits:
    """Who counts.

    Args:
        total: How many connections there may be; None for any number.
        per_client: How many of one client.

    Attributes:
        counts: Connections in all, a route and a client, by key.
    """

    def __init__(self, total: int | None, per_client: int | None) -> None:
        self.counts: Counter[Hashable] = Counter()
        self._total = total
        self._per_client = per_client
        self._keys: dict[Hashable, tuple[Hashable, ...]] = {}  # by route

    def admit(
        self,
        slot: Slot,
        route: Hashable,
        route_limit: int | None,
        client: Hashable,
        *,
        instead: bool = False,
    ) -> bool:
        """Count a connection; return whether it may be.

        Args:
            slot: The connection's.
            route: The route.
            route_limit: The route's own limit.
            client: Who the client is; None if it is not counted.
            instead: Whether it seems to take the place of a connection that leaves as
                it comes; then it is counted whatever the limits, for `Slot.over` to be
                asked when it is known.
        """
        keys = self._keys.get(route)
        if keys is None:
            keys = self._keys[route] = (_ALL, ("route", route))
        limits: tuple[int | None, ...] = (self._total, route_limit)
        if client is not None:
            keys = (*keys, ("client", client))
            limits = (*limits, self._per_client)
        exceeded: Mapping[Hashable, int] = _NOTHING
        if limits != (None, None):
            exceeded = {
                key: limit
                for key, limit in zip(keys, limits, strict=True)
                if limit is not None and self.counts[key] >= limit
            }
            if exceeded and not instead:
                return False
        slot.take(self.counts, keys, exceeded or _NOTHING)
        return True
