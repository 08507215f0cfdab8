"""Training one order: fetch, train until shortly before the deadline, claim whatever gets better.

A job runs in a thread of its own. Its checkpoints and claimed models are on disk; after a kill the next job
for the order goes on from them. Guarantee: a claim that no aggregator takes, or for which there is no free
stake yet, is sent again until it stands or training closes, also by the next job after a kill; training goes
on meanwhile.

Source: PoT 2.4 "Generate a Claim", footnote 6: while time is left, a better model replaces the claim.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from offchain.config import ProviderConfig
from offchain.material import unhex
from offchain.provider.claims import ClaimedModels, Placing, Wanted
from offchain.provider.fetching import fetch_order
from offchain.provider.progress import ProgressLog
from protocol import tracing
from protocol.crypto import commitment, sha256
from protocol.errors import ProtocolError
from protocol.logs import about
from protocol.transactions import Claim, claim_body

if TYPE_CHECKING:
    from offchain.actor import Actor
    from offchain.training.engine import Improvement, Progress, Result
    from offchain.training.task import TrainingConfig, TrainingTask

log = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_REASON: Final = 500
"""Characters of a library's error in a log and an event."""


class Job:
    """One order's training, from fetching its data to the last claim before the deadline."""

    def __init__(
        self, actor: Actor, config: ProviderConfig, detail: Json, folder: Path, device: Any = None
    ) -> None:
        """``device``: the one of ``jax.local_devices()`` to train on; JAX's default if None."""
        self.oid = detail["oid"]
        self.claims = ClaimedModels(folder / "claims")
        self.events = ProgressLog(folder)
        self.device = device
        self.progress: Progress | None = None
        self._actor = actor
        self._config = config
        self._detail = detail
        self._folder = folder
        # The ledger's deadline against this machine's clock, less a margin for the claim to be ordered.
        self._stop_at_s = detail["deadlineMs"] / 1000 - config.deadline_margin_s
        self._placing = Placing(
            self.claims,
            lambda committed: actor.network.submit(Claim, oid=unhex(self.oid), commitment=committed),
            on_placed=self._placed,
            over=lambda: self.over,
            stopping=actor.stopping,
        )
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
        with about(oid=self.oid):
            try:
                self._train()
            except ProtocolError as reason:
                self._give_up(str(reason))
            except OSError as reason:
                self._give_up(f"{reason}; is there room in {self._actor.config.data_dir}?")
            except Exception as bug:
                # A device out of memory, a compiler's error: other orders go on.
                log.exception("the training of order %s failed", self.oid)
                self._give_up(f"{type(bug).__name__}: {bug}")
            finally:
                self._placing.close()

    def _give_up(self, reason: str) -> None:
        log.warning("order %s is given up: %s", self.oid, reason[:MAX_REASON])
        self.events.note("given_up", reason=reason[:MAX_REASON])

    def _train(self) -> None:
        with tracing.span("fetch data", self.oid):
            task = fetch_order(
                self._detail, self._config, self._actor.stopping, lambda: self.over, self.device
            )
        if task is None:
            return
        log.info("training order %s for %.0f s", self.oid, self._stop_at_s - time.time())
        self.events.note("started", device=str(self.device or "default"))
        mine = (claim for claim in self._detail["claims"] if claim["provider"] == self._actor.me)
        standing = next((unhex(claim["commitment"]) for claim in mine), None)
        self._placing.take_up(standing)
        with tracing.span("train", self.oid, device=str(self.device or "default")):
            result = self._work(task, self._plan())
        if result.model is None:
            log.warning("order %s: no model was ready in time, so there is no claim", self.oid)
        log.info("training ended (%s) after %d steps, score %s", result.reason, result.step, result.score)
        self._placing.finish()
        self.events.note("ended", reason=result.reason, step=result.step, best_score=result.score)

    def _plan(self) -> TrainingConfig:
        from offchain.training.task import TrainingConfig

        return TrainingConfig(
            seed=self._config.seed,
            batch_size=self._config.batch_size,
            learning_rate=self._config.learning_rate,
            patience_steps=self._config.patience_steps,
            stop_early=self._config.stop_early,
            # The whole window: a job that is killed and starts again follows the same plan.
            budget_s=max(1.0, int(self._detail["order"]["trainWindow"]) - self._config.deadline_margin_s),
        )

    def _work(self, task: TrainingTask, plan: TrainingConfig) -> Result:
        """Train, claiming what gets better; here and now, on this job's device."""
        import jax

        from offchain.training.engine import train

        # For this thread alone: other jobs compute on other devices.
        with jax.default_device(self.device):
            return train(
                task,
                plan,
                checkpoint_dir=self._folder / "checkpoints",
                should_stop=self._should_stop,
                on_improved=self._claim,
                on_progress=self._note,
                time_left=lambda: self._stop_at_s - time.time(),
            )

    def _note(self, progress: Progress) -> None:
        self.progress = progress
        self.events.note("progress", **asdict(progress))

    def _claim(self, improvement: Improvement) -> None:
        """Commit to a better model, without waiting for the ledger.

        What does not beat the order's baseline would be shown to everybody, for nothing.
        """
        if improvement.score <= int(self._detail["order"]["baseline"]):
            self.events.note("below_baseline", step=improvement.step, score=improvement.score)
            return
        oid, account = unhex(self.oid), self._actor.key.address
        body = claim_body(sha256(improvement.model), len(improvement.model))
        committed = commitment(oid, account, body, self._actor.salt(oid, body))
        wanted = Wanted(committed, improvement.score, improvement.step)
        self._placing.offer(wanted, improvement.model)

    def _placed(self, claim: Wanted) -> None:
        if claim.score is None:
            self.events.note("claimed")
            log.info("claimed order %s with the model found before the restart", self.oid)
            return
        self.events.keep(claimed_score=claim.score)
        self.events.note("claimed", step=claim.step)
        log.info("claimed order %s with holdout score %d at step %d", self.oid, claim.score, claim.step)
