"""Counters of a service, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from picsnet.serve.pool import Pool

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "picsnet_requests",
            "Answered requests; status 499 are those whose client went away.",
            ["verb", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "picsnet_request_seconds",
            "From the head of a request to the end of its answer.",
            ["verb"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.received = Counter(
            "picsnet_received_bytes", "Of bodies.", ["verb"], registry=self.registry
        )
        self.sent = Counter("picsnet_sent_bytes", "Of bodies.", ["verb"], registry=self.registry)
        self.restarts = Counter(
            "picsnet_worker_restarts",
            "Workers that were replaced: timeout, died, ended.",
            ["reason"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def watch(self, pool: Pool) -> None:
        """Gauges of a pool, read when asked for."""
        for name, about, read in (
            ("picsnet_queue_length", "Requests that wait.", lambda: pool.count("waiting")),
            ("picsnet_in_work", "Requests in work.", lambda: pool.count("working")),
            ("picsnet_receiving", "Bodies being read.", lambda: pool.count("receiving")),
            ("picsnet_sending", "Answers being taken.", lambda: pool.count("sending")),
            ("picsnet_ready", "1 where models are loaded and work is taken.", lambda: pool.ready),
        ):
            Gauge(name, about, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
