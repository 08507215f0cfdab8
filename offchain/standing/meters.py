"""What one actor counts while it works, in a registry of its own.

Labels are of bounded kinds only: names of transactions, events and errors in this code; never an account, an
order or an address. Counting is thread-safe and costs the work nothing it would notice.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

EVALUATION_BUCKETS_S: Final = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""From a small network on a GPU to a large one on a laptop."""


class Meters:
    """Counters of one actor; its monitor adds the gauges."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._rounds = Counter("dtn_rounds", "Looks at the ledger that ended well.", registry=self.registry)
        self._errors = Counter(
            "dtn_errors", "What went wrong and was survived, by type.", ["error"], registry=self.registry
        )
        self._submissions = Counter(
            "dtn_submissions",
            "Ledger transactions sent, by kind and by what became of them.",
            ["transaction", "result"],
            registry=self.registry,
        )
        self._evaluations = Counter(
            "dtn_evaluations", "Models scored, by what was found.", ["result"], registry=self.registry
        )
        self._evaluation_s = Histogram(
            "dtn_evaluation_seconds",
            "How long scoring one model took.",
            buckets=EVALUATION_BUCKETS_S,
            registry=self.registry,
        )
        self._trainings = Counter(
            "dtn_training_events", "What happened in trainings, by event.", ["event"], registry=self.registry
        )

    def round(self) -> None:
        """One look at the ledger ended well."""
        self._rounds.inc()

    def error(self, reason: Exception) -> None:
        """Something went wrong and the work goes on."""
        self._errors.labels(type(reason).__name__).inc()

    def submitted(self, transaction: str, result: str) -> None:
        """A ledger transaction was accepted, refused, or not ordered in time."""
        self._submissions.labels(transaction, result).inc()

    def evaluated(self, result: str, took_s: float) -> None:
        """A model was scored, found invalid, or left alone for its size."""
        self._evaluations.labels(result).inc()
        self._evaluation_s.observe(took_s)

    def training(self, event: str) -> None:
        """A training began, claimed, ended; see `offchain.provider.progress.Event`."""
        self._trainings.labels(event).inc()
