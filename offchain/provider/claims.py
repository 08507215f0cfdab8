"""An order's claims: models are kept on disk, and commitments sent until the ledger takes them.

For each order a folder with ``<commitment>.safetensors`` files. On the ledger stands at most one commitment
of a provider; `ClaimedModels.find` says which model opens it.

Guarantees: a model is on disk before its commitment is sent, and stays as long as the commitment may stand on
the ledger, whatever was killed in between; training does not wait for the network; while nobody can say
whether a claim was ordered the same one is sent again, so a process keeps no more than three models beside
what it found; a claim for which there is no free stake waits for it, or for a better one. Disk errors reach
who offers a model.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from offchain.files import write_whole
from offchain.network import LedgerRefused, NetworkError

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""After a claim that no aggregator took; each try asks all of them."""
STAKE_RETRY_S: Final = 5.0
"""After a claim without free stake: other orders lock it until they are settled, and owners add some."""
NOT_STAKED: Final = "NotStaked"
"""The ledger's code for it."""


class ClaimedModels:
    """Model files by commitment, for one order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # An earlier process may have sent any of these.
        self._standing = {bytes.fromhex(path.stem) for path in self._oldest_first()}

    def keep(self, commitment: bytes, model: bytes) -> None:
        """Store a model durably, and drop those whose commitments were never sent or stand no more."""
        path = self._path(commitment)
        write_whole(path, model)
        needed = {path, *map(self._path, self._standing)}
        for old in self._oldest_first():
            if old not in needed:
                old.unlink(missing_ok=True)

    def sending(self, commitment: bytes) -> None:
        """From now on this one may stand on the ledger too."""
        self._standing.add(commitment)

    def placed(self, commitment: bytes) -> None:
        """This one stands: those sent before it have older nonces, and are refused if they come late."""
        self._standing = {commitment}

    def refused(self, commitment: bytes) -> None:
        """This one does not stand, nor will it unless it is sent again."""
        self._standing.discard(commitment)

    def find(self, commitment: bytes) -> bytes | None:
        """The model that a commitment on the ledger is for."""
        path = self._path(commitment)
        return path.read_bytes() if path.exists() else None

    def latest(self) -> bytes | None:
        """The commitment whose model was stored last: the best one."""
        files = self._oldest_first()
        return bytes.fromhex(files[-1].stem) if files else None

    def _path(self, commitment: bytes) -> Path:
        return self._folder / f"{commitment.hex()}.safetensors"

    def _oldest_first(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


class Wanted(NamedTuple):
    """A claim that should stand on the ledger."""

    commitment: bytes
    score: int | None = None
    """Of the holdout, in millionths; none if an earlier process found the model."""
    step: int | None = None


class Placing:
    """Sends the best claim so far from a thread of its own, until it stands or it is too late."""

    def __init__(
        self,
        models: ClaimedModels,
        submit: Callable[[bytes], object],
        *,
        on_placed: Callable[[Wanted], None],
        over: Callable[[], bool],
        stopping: threading.Event,
    ) -> None:
        """``submit`` places a commitment, or raises as `Network.submit`; ``over``: whether it is too late.

        Everything wanted gets one try, and no other one once it is over or ``stopping`` is set.
        """
        self._models, self._submit, self._on_placed = models, submit, on_placed
        self._over, self._stopping = over, stopping
        self._changed = threading.Condition()
        self._wanted: Wanted | None = None
        self._busy = self._closed = False
        self._thread: threading.Thread | None = None

    def offer(self, wanted: Wanted, model: bytes) -> None:
        """Keep a model that is better than all before, and claim it as soon as may be.

        Raises:
            OSError: it could not be kept, so it is not claimed.
        """
        with self._changed:
            self._models.keep(wanted.commitment, model)
            self._want(wanted)

    def take_up(self, standing: bytes | None) -> None:
        """Claim what an earlier process kept and may not have claimed, if not this stands already."""
        with self._changed:
            if standing is not None:
                self._models.sending(standing)
            latest = self._models.latest()
            if latest is not None and latest != standing:
                self._want(Wanted(latest))

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        if self._thread is None:
            # Logs and traces name the order, as where the claim comes from.
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._run,), name="claims", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def finish(self) -> None:
        """Wait until the best claim stands, or was refused, or it is too late for it."""
        with self._changed:
            while self._busy or self._wanted is not None:
                self._changed.wait()

    def close(self) -> None:
        """End the thread, once it has done what it does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (wanted := self._next()) is not None:
            try:
                self._place(wanted)
            except Exception:
                # The thread lives on: whoever waits for it would wait for ever, and the next claim may do.
                log.exception("a claim was not placed")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> Wanted | None:
        with self._changed:
            while self._wanted is None and not self._closed:
                self._changed.wait()
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                self._busy = True
                # Before another may be kept, which would drop it.
                self._models.sending(wanted.commitment)
            return wanted

    def _place(self, wanted: Wanted) -> None:
        told = False
        unknown = wanted.score is None  # an earlier process may have sent it
        while True:
            refusal = None
            try:
                self._submit(wanted.commitment)
            except NetworkError as reason:
                unknown, what, pause_s = True, f"is not placed yet and will be sent again: {reason}", RETRY_S
            except LedgerRefused as reason:
                refusal, what, pause_s = reason, f"was refused: {reason}", STAKE_RETRY_S
                if not unknown:
                    with self._changed:
                        self._models.refused(wanted.commitment)
            else:
                with self._changed:
                    self._models.placed(wanted.commitment)
                self._on_placed(wanted)
                return
            log.log(logging.DEBUG if told else logging.WARNING, "a claim %s", what)
            told = True
            if refusal is not None and refusal.code != NOT_STAKED:
                return
            if self._stopping.wait(pause_s) or self._over():
                log.warning("a claim was not placed in time")
                return
            if refusal is not None and not self._still_best(wanted):
                return

    def _still_best(self, wanted: Wanted) -> bool:
        """Whether to send a refused claim again: not once a better model was kept in its model's place."""
        with self._changed:
            if self._wanted is not None:
                return False
            self._models.sending(wanted.commitment)
            return True
