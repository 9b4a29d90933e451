"""Prometheus metrics: traffic, refusals, queue length, and drift of the predictions since validation."""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from thaw.errors import BundleError
from thaw.recipe import Task

WINDOW = 1000
"""Latest images over which class fractions and mean confidence are computed."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Baseline:
    """Predictions on validation: mean confidence, and the fraction of images that each class was predicted for."""

    confidence: float
    class_fractions: Mapping[str, float]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Baseline | None:
        """The `thaw.baseline` of a bundle's config.json, or `None` if it has none; raises `BundleError`."""
        values = config["thaw"].get("baseline")
        if values is None:
            return None
        try:
            # Release 0.1 wrote the fractions as `shares`.
            found = values.get("class_fractions", values.get("shares"))
            fractions = {str(name): float(fraction) for name, fraction in found.items()}
            return cls(float(values["confidence"]), fractions)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError("config.json: thaw.baseline needs a confidence and class_fractions") from error


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self, classes: Sequence[str], task: Task, baseline: Baseline | None) -> None:
        self._registry = CollectorRegistry()
        self._classes = classes
        self._task = task
        self._baseline = baseline
        self._lock = Lock()
        self._latest: deque[tuple[tuple[str, ...], float]] = deque(maxlen=WINDOW)
        own = self._registry
        self._requests = Counter("thaw_requests", "Requests handled.", ("route", "status"), registry=own)
        self._seconds = Histogram(
            "thaw_request_seconds", "Seconds from first to last byte.", ("route",), registry=own, buckets=_SECONDS
        )
        self._refusals = Counter("thaw_refusals", "Requests refused.", ("reason",), registry=own)
        self._errors = Counter("thaw_errors", "Requests that failed with an internal error.", registry=own)
        self._images = Counter("thaw_images", "Images classified.", registry=own)
        self._predicted = Counter("thaw_predictions", "Images by predicted class.", ("label",), registry=own)
        self._batches = Histogram("thaw_batch_images", "Images per batch.", registry=own, buckets=_SIZES)
        self._queue = Gauge("thaw_queue_images", "Images accepted but not yet classified.", registry=own)
        self._confidence = Gauge(
            "thaw_recent_confidence", f"Mean confidence over the latest {WINDOW} images.", registry=own
        )
        self._class_fractions = Gauge(
            "thaw_recent_class_fraction",
            f"Fraction of the latest {WINDOW} images that a class was predicted for.",
            ("label",),
            registry=own,
        )
        for name in classes:
            self._predicted.labels(name)
        if baseline:
            self._set_baseline(baseline)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Set the function that returns the number of images in the queue."""
        self._queue.set_function(length)

    def handled(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count one refusal."""
        self._refusals.labels(reason).inc()

    def failed(self) -> None:
        """Count one internal error."""
        self._errors.inc()

    def batch(self, images: int) -> None:
        """Count one batch."""
        self._batches.observe(images)

    def predicted(self, labels: tuple[str, ...], confidence: float) -> None:
        """Count one image."""
        self._images.inc()
        for label in labels:
            self._predicted.labels(label).inc()
        with self._lock:
            self._latest.append((labels, confidence))

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        with self._lock:
            latest = list(self._latest)
        if latest:
            self._set_recent(latest)
        return generate_latest(self._registry)

    def _set_recent(self, latest: list[tuple[tuple[str, ...], float]]) -> None:
        seen = Tally(label for labels, _ in latest for label in labels)
        fractions = {name: seen[name] / len(latest) for name in self._classes}
        self._confidence.set(sum(confidence for _, confidence in latest) / len(latest))
        for name, fraction in fractions.items():
            self._class_fractions.labels(name).set(fraction)
        if self._baseline:
            expected = self._baseline.class_fractions
            differences = [abs(fraction - expected.get(name, 0.0)) for name, fraction in fractions.items()]
            # With several labels per image each of them is a distribution of its own.
            self._shift.set(sum(differences) / (len(differences) if self._task == "multilabel" else 2))

    def _set_baseline(self, baseline: Baseline) -> None:
        own = self._registry
        Gauge("thaw_validation_confidence", "Mean confidence on validation.", registry=own).set(baseline.confidence)
        fractions = Gauge(
            "thaw_validation_class_fraction",
            "Fraction of validation images that a class was predicted for.",
            ("label",),
            registry=own,
        )
        for name, fraction in baseline.class_fractions.items():
            fractions.labels(name).set(fraction)
        self._shift = Gauge(
            "thaw_class_shift",
            "Total variation distance between recent and validation class fractions: 0 equal, 1 disjoint; with several "
            "labels per image the mean over the labels.",
            registry=own,
        )
