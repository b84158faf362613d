"""What the gateway counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "trace_gateway_requests",
            "Requests by route and status (499: the client has closed the connection)",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "trace_gateway_request_seconds",
            "From the request to the end of its response",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.routing_seconds = Histogram(
            "trace_gateway_routing_seconds",
            "To decide on a conversation, waiting included",
            registry=registry,
            buckets=_SECONDS,
        )
        self.served = Counter("trace_gateway_served", "Requests by what served them", ("adapter",), registry=registry)
        self.prompts = Counter(
            "trace_gateway_prompts",
            "Requests to servers by what wrote the prompt: training (as in training), server (the server's template)",
            ("writer",),
            registry=registry,
        )
        self.decisions = Counter(
            "trace_gateway_decisions", "Conversations routed, by the decision", ("adapter",), registry=registry
        )
        self.fallbacks = Counter(
            "trace_gateway_fallbacks",
            "Conversations that the base serves because: undecided, error (of the router), rank (of a merge), load",
            ("cause",),
            registry=registry,
        )
        self.recorded = Counter("trace_gateway_recorded_requests", "Requests that are recorded", registry=registry)
        self.broken = Counter("trace_gateway_broken_answers", "Responses that were cut", registry=registry)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that calls ``value`` when it is read."""
        Gauge(f"trace_gateway_{name}", help, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
