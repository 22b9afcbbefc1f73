"""What an operator watches, for Prometheus. Each app has its own registry, so that two in a process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from llava_lite.generation.chat_model import Finish, SharedModel

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OUTCOMES = ("stop", "length", "cancelled", "refused", "rejected", "timeout", "failed")


class Metrics:
    """Counts what happens to requests.

    An outcome is how an answer ended (stop, length), `cancelled` by a client that left or a server that stops,
    `refused` for a client's mistake, `rejected` where too many waited, `timeout`, or `failed` for a bug.
    """

    def __init__(self, model: SharedModel) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by outcome.", ["outcome"])
        for outcome in OUTCOMES:  # all there from the start, as rates need them
            self.requests.labels(outcome)
        self.images = self._counter("images", "Images in answered requests.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, visual tokens counted.")
        self.reused_tokens = self._counter("reused_tokens", "Of them, those computed for an earlier turn.")
        self.answer_tokens = self._counter("answer_tokens", "Tokens of answers.")
        self.first_token = self._histogram("time_to_first_token_seconds", "From a request's start to its first text.")
        self.duration = self._histogram("request_seconds", "From a request's start to the end of its answer.")
        self._gauge("answering", "Answers under way.").set_function(lambda: model.load().num_answering)
        self._gauge("waiting", "Requests waiting for a place.").set_function(lambda: model.load().num_waiting)
        self.open_requests = self._gauge("open_requests", "Requests between their first byte and their last.")

    def count(self, finish: Finish, *, num_images: int, seconds: float) -> None:
        """Count an answer that ended."""
        self.requests.labels(finish.reason).inc()
        self.images.inc(num_images)
        self.prompt_tokens.inc(finish.num_prompt_tokens)
        self.reused_tokens.inc(finish.num_reused_tokens)
        self.answer_tokens.inc(finish.num_answer_tokens)
        self.duration.observe(seconds)

    def render(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, told: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"llava_lite_{name}", told, labels or [], registry=self.registry)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(f"llava_lite_{name}", told, registry=self.registry)

    def _histogram(self, name: str, told: str) -> Histogram:
        return Histogram(f"llava_lite_{name}", told, buckets=SECONDS, registry=self.registry)
