"""What the service counts, for Prometheus; every application has counters of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters and gauges of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("melisma_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "melisma_request_seconds",
            "From a request's first byte to its answer's last",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.audio_seconds = Counter("melisma_audio_seconds", "Audio made", ["model"], registry=self.registry)
        self.left = Counter("melisma_clients_left", "Requests given up by their client", registry=self.registry)
        self.waiting = Gauge("melisma_waiting", "Requests that wait or send their body", registry=self.registry)
        self.working = Gauge("melisma_working", "Requests that are worked on", registry=self.registry)
        self.streams = Gauge("melisma_streams", "Open streams", registry=self.registry)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
