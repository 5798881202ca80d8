"""Metrics for Prometheus: what ``SSE.stats()`` counts, read when somebody scrapes.

Law: nothing is counted here, so that an event costs nothing more with metrics than
without. Labels are the names of routes and words of this package, never what a client
has said.
"""

from __future__ import annotations

__all__ = ("SSECollector", "register")

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "aiohttp_sse_routes.metrics needs prometheus-client: "
        "pip install 'aiohttp-sse-routes[prometheus]'",
        name=exc.name,
    ) from exc

from .face import SSE
from .http.stats import RouteStats

_Count = Callable[[RouteStats], int]
_Counts = Callable[[RouteStats], Mapping[str, object]]

# Name, what it says, and the count.
_GAUGES: Final[Sequence[tuple[str, str, _Count]]] = (
    ("sse_connections_open", "Streams that are open now.", lambda row: row["open"]),
    (
        "sse_runs_detached",
        "Private runs that wait for their clients now.",
        lambda row: row["detached"],
    ),
)
_COUNTERS: Final[Sequence[tuple[str, str, _Count]]] = (
    ("sse_connections_opened", "Streams that were opened.", lambda row: row["opened"]),
    ("sse_events", "Events written to connections.", lambda row: row["events"]),
    ("sse_bytes", "Bytes written to connections.", lambda row: row["bytes"]),
    (
        "sse_replays",
        "Streams that went on where they had been, and had missed something.",
        lambda row: row["replays"],
    ),
)
# The same, with the label of the words that the counts are by.
_BY_WORD: Final[Sequence[tuple[str, str, str, _Counts]]] = (
    (
        "sse_connections_closed",
        "Streams that were closed, by reason.",
        "reason",
        lambda row: row["closed"],
    ),
    (
        "sse_gaps",
        "Gaps that clients were told of, by reason.",
        "reason",
        lambda row: row["gaps"],
    ),
    (
        "sse_slow_clients",
        "Times that a client was too slow, by what was done about it.",
        "outcome",
        lambda row: row["slow"],
    ),
)


class SSECollector(Collector):
    """Gives a registry the counts of one application's streams.

    Args:
        sse: What ``setup`` has returned. The application need not run yet.
    """

    def __init__(self, sse: SSE) -> None:
        self._sse = sse

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without a value, for a registry to know their names."""
        return list(_metrics({}))

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now; from any thread."""
        return list(_metrics(self._sse.stats()))


def register(sse: SSE, registry: CollectorRegistry = REGISTRY) -> SSECollector:
    """Let *registry* have the counts of *sse*.

    Args:
        sse: What ``setup`` has returned.
        registry: Where to; by default the one that prometheus-client's functions use.
            Each application of a process needs one of its own.

    Returns:
        What was registered, for ``registry.unregister``.

    Raises:
        ValueError: *registry* has such metrics already.
    """
    collector = SSECollector(sse)
    registry.register(collector)
    return collector


def _metrics(rows: Mapping[str, RouteStats]) -> Iterator[Metric]:
    for name, text, value in _GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=["route"])
        for route, row in rows.items():
            gauge.add_metric([route], value(row))
        yield gauge
    for name, text, value in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=["route"])
        for route, row in rows.items():
            counter.add_metric([route], value(row))
        yield counter
    for name, text, label, values in _BY_WORD:
        counter = CounterMetricFamily(name, text, labels=["route", label])
        for route, row in rows.items():
            for word, count in values(row).items():
                assert isinstance(count, int)
                counter.add_metric([route, word], count)
        yield counter
