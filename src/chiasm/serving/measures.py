"""What a monitor asks of the server, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chiasm.serving.worker import Worker

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Measures:
    """Counters of one server."""

    def __init__(self, workers: Mapping[str, Worker]):
        self._registry = CollectorRegistry()
        labels = ("route", "model")
        self.requests = Counter(
            "chiasm_requests", "requests by outcome", (*labels, "outcome"), registry=self._registry
        )
        self.tokens = Counter("chiasm_tokens", "tokens", ("model", "of"), registry=self._registry)
        self.images = Counter("chiasm_images", "images drawn", ("model",), registry=self._registry)
        self.seconds = Histogram(
            "chiasm_seconds", "seconds a request", labels, buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_OfWorkers(workers))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _OfWorkers(Collector):
    def __init__(self, workers: Mapping[str, Worker]):
        self.workers = workers

    def collect(self) -> list[Metric]:
        pending = GaugeMetricFamily("chiasm_pending", "requests under way or waiting", labels=["model"])
        reused = CounterMetricFamily(
            "chiasm_reused_positions", "positions that another request had read", labels=["model"]
        )
        for name, worker in self.workers.items():
            pending.add_metric([name], worker.pending)
            reused.add_metric([name], worker.reused)
        return [pending, reused]
