"""What Prometheus sees. Labels are bounded: configured model names and fixed words, never what a client wrote."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from espalier_mlx.work import Finished

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)


class Metrics:
    """One registry per server, so that several may live in one test process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"espalier_mlx_{name}", text, ["model", *more], registry=of)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"espalier_mlx_{name}_seconds", text, ["model"], buckets=_SECONDS, registry=of)

        self._requests = counter("requests", "Requests by how they ended.", "outcome")
        self._generated = counter("generated_tokens", "Tokens generated.")
        self._prompt = counter("prompt_tokens", "Prompt tokens, cached ones included.")
        self._cached = counter("cached_prompt_tokens", "Prompt tokens found in the cache.")
        self._queue = seconds("queue", "Wait before the batch.")
        self._prefill = seconds("prompt", "Prompt evaluation.")
        self._decode = seconds("generation", "Generation.")
        self._blas = Info("espalier_mlx_backend", "What computes: device and BLAS.", registry=of)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is read when asked for."""
        Gauge(f"espalier_mlx_{name}", text, registry=self.registry).set_function(value)

    def backend(self, *, device: str, blas: str) -> None:
        """Say once what computes."""
        self._blas.info({"device": device, "blas": blas})

    def tokens(self, model: str, count: int) -> None:
        """Answer tokens as they come."""
        self._generated.labels(model).inc(count)

    def ended(self, model: str, outcome: str) -> None:
        """A request ended: stop, length, scored, error, cancelled or refused."""
        self._requests.labels(model, outcome).inc()

    def finished(self, model: str, prompt_tokens: int, event: Finished) -> None:
        """The figures of a complete answer."""
        self.ended(model, event.reason)
        self._prompt.labels(model).inc(prompt_tokens)
        self._cached.labels(model).inc(event.cached_tokens)
        self._queue.labels(model).observe(event.timings.queue_s)
        self._prefill.labels(model).observe(event.timings.prompt_s)
        self._decode.labels(model).observe(event.timings.generation_s)

    def render(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self.registry)
