"""Participants that break the rules, as real processes.

``python -m tests.end_to_end.misbehaving KIND --config FILE``

Each is the honest role with one thing changed, so that what the network meets is what an attacker could run.
"""

from __future__ import annotations

import argparse
import logging
import threading
from pathlib import Path
from typing import Any

from offchain.client import ClientDaemon
from offchain.client.orders import OrderRecord
from offchain.config import ClientConfig, ProviderConfig, ValidatorConfig
from offchain.judging import Answer
from offchain.material import fetch_task, unhex
from offchain.models.artifact import encode_model
from offchain.models.families import mlp
from offchain.models.network import initialise, to_tensors
from offchain.provider import Provider
from offchain.provider.claims import ClaimedModels
from offchain.storage import link_to
from offchain.validator import Validator
from protocol.crypto import commitment, sha256
from protocol.transactions import Claim, ClaimReveal, TestRelease, claim_body

Json = dict[str, Any]


class LyingValidator(Validator):
    """Reports every model as better than it is."""

    def assess(self, detail: Json) -> dict[str, Answer]:
        return {mid: (score + 10_000, digest) for mid, (score, digest) in super().assess(detail).items()}


class UntrainedProvider(Provider):
    """Claims a file of its making instead of training; `file_for` says which."""

    def wants(self, detail: Json) -> bool:
        return detail["oid"] not in self.jobs

    def begin(self, detail: Json) -> None:
        self.jobs[detail["oid"]] = _Done()  # type: ignore[assignment]
        self.claim_file(detail, self.file_for(detail))

    def file_for(self, detail: Json) -> bytes:
        return b"this is not safetensors" * 100

    def claim_file(self, detail: Json, model: bytes) -> None:
        oid = unhex(detail["oid"])
        body = claim_body(sha256(model), len(model))
        committed = commitment(oid, self.key.address, body, self.salt(oid, body))
        ClaimedModels(self._folder(detail["oid"]) / "claims").keep(committed, model)
        self.network.submit(Claim, oid=oid, commitment=committed)


class _Done:
    """Stands where a job would: nothing runs."""

    running = False
    over = False

    def join(self, timeout_s: float) -> None:
        return


class OtherArchitecture(UntrainedProvider):
    """Claims a well-formed model of another architecture."""

    def file_for(self, detail: Json) -> bytes:
        task = fetch_task(detail["order"])
        other = mlp(task.architecture.input_shape, task.data.classes, hidden=(7,))
        return encode_model(to_tensors(initialise(other, 0)), other)


class WrongOpening(UntrainedProvider):
    """Reveals another model than the one it committed to."""

    def reveal_model(self, detail: Json, model: bytes) -> None:
        super().reveal_model(detail, model + b"!")


class WrongBytes(UntrainedProvider):
    """Opens its commitment honestly, but its link serves other bytes."""

    def file_for(self, detail: Json) -> bytes:
        return b"nobody ever sees this file"

    def reveal_model(self, detail: Json, model: bytes) -> None:
        cid = self.store.put(b"something else")
        self.store.publish(cid)
        oid, mid = unhex(detail["oid"]), sha256(model)
        self.network.submit(
            ClaimReveal,
            oid=oid,
            mid=mid,
            size_bytes=len(model),
            links=(link_to(self.url, cid),),
            salt=self.salt(oid, claim_body(mid, len(model))),
        )


class Silent(UntrainedProvider):
    """Claims and never reveals."""

    def reveal(self, detail: Json) -> None:
        threading.Event().wait(0.1)


class HidingClient(ClientDaemon):
    """Says that it releases the test set, and serves it to nobody."""

    def release_test(self, oid: bytes, record: OrderRecord, detail: Json) -> None:
        if detail["testLinks"] is None:
            fragments = record.document().fragment_digests()
            self.network.submit(TestRelease, oid=oid, fragments=fragments, links=(self.url,))


KINDS: dict[str, tuple[Any, Any]] = {
    "lying-validator": (LyingValidator, ValidatorConfig),
    "garbage": (UntrainedProvider, ProviderConfig),
    "other-architecture": (OtherArchitecture, ProviderConfig),
    "wrong-opening": (WrongOpening, ProviderConfig),
    "wrong-bytes": (WrongBytes, ProviderConfig),
    "silent": (Silent, ProviderConfig),
    "hiding-client": (HidingClient, ClientConfig),
}


def main() -> None:
    """Run one misbehaving participant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    actor, config = KINDS[arguments.kind]
    actor(config.read(arguments.config)).run()


if __name__ == "__main__":
    main()
