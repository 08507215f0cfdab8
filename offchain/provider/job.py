"""Training one order: fetch, train until shortly before the deadline, claim whatever gets better.

A job runs in a thread of its own. Its checkpoints and claimed models are on disk; after a kill the next job
for the order goes on from them.

Source: PoT 2.4 "Generate a Claim", footnote 6: while time is left, a better model replaces the claim.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offchain.config import ProviderConfig
from offchain.material import fetch_initial, fetch_task, fetch_training, unhex
from offchain.models.estimate import estimate
from offchain.network import LedgerRefused, NetworkError
from offchain.provider.claims import ClaimedModels
from offchain.storage import InvalidCid, Unavailable
from protocol.architecture import parameter_count
from protocol.crypto import commitment, sha256
from protocol.errors import ProtocolError
from protocol.transactions import Claim, claim_body

if TYPE_CHECKING:
    from offchain.actor import Actor
    from offchain.training.engine import Improvement, Progress, TrainingTask

log = logging.getLogger(__name__)

Json = dict[str, Any]

FETCH_RETRY_S = 1.0


class Declined(ProtocolError):
    """An order that this provider will not or cannot train; says why."""


class Job:
    """One order's training, from fetching its data to the last claim before the deadline."""

    def __init__(self, actor: Actor, config: ProviderConfig, detail: Json, folder: Path) -> None:
        self.oid = detail["oid"]
        self.claims = ClaimedModels(folder / "claims")
        self.progress: Progress | None = None
        self._actor = actor
        self._config = config
        self._detail = detail
        self._folder = folder
        # The ledger's deadline against this machine's clock, less a margin for the claim to be ordered.
        self._stop_at_s = detail["deadlineMs"] / 1000 - config.deadline_margin_s
        self._thread = threading.Thread(target=self._run, name=f"job {self.oid[:10]}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it is too late for another claim on the order."""
        return time.time() >= self._stop_at_s

    @property
    def running(self) -> bool:
        """Whether the job still works on its order."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the job to end."""
        self._thread.join(timeout_s)

    def _should_stop(self) -> bool:
        return self._actor.stopping.is_set() or self.over

    def _run(self) -> None:
        try:
            self._train()
        except (ProtocolError, OSError) as reason:
            log.warning("order %s is given up: %s", self.oid, reason)

    def _train(self) -> None:
        from offchain.training.engine import TrainingConfig, train

        task = self._fetch()
        if task is None:
            return
        config = TrainingConfig(
            seed=self._config.seed,
            batch_size=self._config.batch_size,
            learning_rate=self._config.learning_rate,
            patience_steps=self._config.patience_steps,
            # The whole window: a job that is killed and starts again follows the same plan.
            budget_s=max(1.0, int(self._detail["order"]["trainWindow"]) - self._config.deadline_margin_s),
        )
        log.info("training order %s for %.0f s", self.oid, self._stop_at_s - time.time())
        result = train(
            task,
            config,
            checkpoint_dir=self._folder / "checkpoints",
            should_stop=self._should_stop,
            on_improved=self._claim,
            on_progress=self._note,
            time_left=lambda: self._stop_at_s - time.time(),
        )
        if result.model is None:
            log.warning("order %s: no model was ready in time, so there is no claim", self.oid)
        log.info("training ended (%s) after %d steps, score %s", result.reason, result.step, result.score)

    def _fetch(self) -> TrainingTask | None:
        """Task and training data; the client publishes the data once the chain has confirmed the order."""
        from offchain.training.engine import TrainingTask

        while not self._should_stop():
            try:
                document = fetch_task(self._detail["order"])
                count = parameter_count(document.architecture)
                if count > self._config.max_parameters:
                    raise Declined(f"{count} parameters are more than this provider trains")
                needed = estimate(document.architecture, self._config.batch_size).training_bytes
                if needed > self._config.max_training_bytes:
                    raise Declined(
                        f"training takes {needed} bytes by the estimate, more than this provider has"
                    )
                fragments = fetch_training(document, unhex(self._detail["blockHash"]))
                initial = fetch_initial(document)
            except (Unavailable, InvalidCid) as reason:
                log.debug("waiting for the data of %s: %s", self.oid, reason)
                self._actor.stopping.wait(FETCH_RETRY_S)
                continue
            return TrainingTask(
                architecture=document.architecture,
                fragments=fragments,
                metric=document.metric,
                initial=initial,
            )
        log.warning("the data of order %s was not to be had before its deadline", self.oid)
        return None

    def _note(self, progress: Progress) -> None:
        self.progress = progress

    def _claim(self, improvement: Improvement) -> None:
        """Commit to a better model; a claim that cannot be placed does not stop the training."""
        oid, account = unhex(self.oid), self._actor.key.address
        body = claim_body(sha256(improvement.model), len(improvement.model))
        committed = commitment(oid, account, body, self._actor.salt(oid, body))
        self.claims.keep(committed, improvement.model)
        try:
            self._actor.network.submit(Claim, oid=oid, commitment=committed)
        except (LedgerRefused, NetworkError) as reason:
            log.warning("the claim on %s was not placed: %s", self.oid, reason)
            return
        log.info(
            "claimed order %s with holdout score %d at step %d", self.oid, improvement.score, improvement.step
        )
