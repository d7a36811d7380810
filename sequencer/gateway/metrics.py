"""What the gateway counts. Labels come from fixed sets only, never from what a client sent."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sequencer.gateway.refusal import Refusal


class GatewayMetrics:
    """The gateway's own series in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "evermark_gateway_requests_total",
            "HTTP requests by route and status",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "evermark_gateway_request_seconds",
            "Time to answer an HTTP request",
            ["route"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0),
            registry=registry,
        )
        self.refusals = Counter(
            "evermark_gateway_refusals_total", "Refusals by reject code", ["code"], registry=registry
        )
        self.unexpected = Counter(
            "evermark_gateway_unexpected_total", "Errors that no input should cause", registry=registry
        )
        self.sockets = Gauge("evermark_gateway_sockets", "Open WebSocket connections", registry=registry)
        self.slow_clients = Counter(
            "evermark_gateway_slow_clients_total",
            "WebSocket clients cut off for not reading",
            registry=registry,
        )
        self.loop_lag = Gauge(
            "evermark_gateway_loop_lag_seconds",
            "Longest delay of the event loop in the last second",
            registry=registry,
        )

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self.refusals.labels(refusal.reject.code.name).inc()
