"""A task that says where training starts: published with the task, checked by whoever trains, and used."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from offchain.client import Client, PreparedTask, read_task_file
from offchain.client.task_file import Source, load_samples
from offchain.config import ProviderConfig
from offchain.data import Fragment
from offchain.evaluation.score import evaluate
from offchain.material import fetch_initial, fetch_task
from offchain.models.artifact import decode_model, encode_model
from offchain.models.estimate import estimate
from offchain.models.families import mlp
from offchain.provider import Provider
from offchain.provider.fetching import Declined, fetch_order
from offchain.provider.job import Job
from offchain.provider.progress import NAME, standing
from offchain.storage import Cid, EmbeddedStore, Gateway, Unavailable
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture
from protocol.crypto import Key, sha256
from protocol.errors import InvalidArtifact, InvalidDocument
from protocol.keyfile import write_private
from protocol.task import NamedSplit, TaskDocument
from tests.chain import chainless_network

TASK = """
model: {family: mlp, hidden: [16]}
data: {dataset: digits}
windows: {train_s: 60, validate_s: 20, challenge_s: 20}
initial: start.safetensors
"""


@pytest.fixture(scope="module")
def digits() -> Fragment:
    samples = load_samples(Source(dataset="digits"))
    return Fragment(samples.x, samples.y)


@pytest.fixture(scope="module")
def trained(digits: Fragment) -> bytes:
    """A model that knows digits."""
    result = train(
        TrainingTask(architecture(), [digits], "accuracy"),
        TrainingConfig(max_steps=800, steps_per_dispatch=200),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda _: None,
    )
    assert result.model is not None and result.score is not None and result.score > 900_000
    return result.model


def architecture() -> Architecture:
    return mlp((8, 8, 1), 10, hidden=(16,))


@dataclass
class Publisher:
    """A client with its gateway, on a network that nobody else is part of."""

    client: Client
    gateway: Gateway
    store: EmbeddedStore

    def prepare(self, folder: Path, initial: bytes) -> PreparedTask:
        (folder / "task.yaml").write_text(TASK)
        (folder / "start.safetensors").write_bytes(initial)
        return self.client.prepare(read_task_file(folder / "task.yaml"), gateway=self.gateway.url)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    client = Client(chainless_network("http://127.0.0.1:1"), None, tmp_path / "client")
    store = EmbeddedStore(tmp_path / "client" / "store")
    gateway = Gateway(store)
    gateway.start()
    yield Publisher(client, gateway, store)
    gateway.stop()
    client.network.close()


def test_who_trains_gets_the_published_parameters(
    publisher: Publisher, tmp_path: Path, trained: bytes
) -> None:
    document = publisher.prepare(tmp_path, trained).document
    fetched = fetch_initial(document)
    assert fetched is not None and encode_model(fetched, document.architecture) == trained


def test_a_task_without_initial_parameters_names_none(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(TASK.replace("initial: start.safetensors\n", ""))
    task = read_task_file(tmp_path / "task.yaml")
    document = publisher.client.prepare(task, gateway=publisher.gateway.url).document
    assert document.initial_parameters is None and fetch_initial(document) is None


def test_a_file_that_fits_no_such_model_is_refused_before_anything_is_published(
    publisher: Publisher, tmp_path: Path, trained: bytes
) -> None:
    for wrong in (b"", b"no model", trained[:-4], trained + b"\0"):
        with pytest.raises(InvalidDocument, match="is no model of this task's architecture"):
            publisher.prepare(tmp_path, wrong)
    (tmp_path / "task.yaml").write_text(TASK.replace("start.", "missing."))
    with pytest.raises(InvalidDocument, match="cannot read"):
        publisher.client.prepare(read_task_file(tmp_path / "task.yaml"), gateway=publisher.gateway.url)


def changed(document: TaskDocument, store: EmbeddedStore, data: bytes, *, named: bytes) -> TaskDocument:
    """``document`` whose initial parameters are ``data`` under the hash of ``named``."""
    cid = store.put(data)
    store.publish(cid)
    initial = {"sha256": "0x" + sha256(named).hex(), "cid": str(cid)}
    return TaskDocument.model_validate(document.model_dump() | {"initial_parameters": initial})


def test_other_parameters_than_the_task_committed_to_are_refused(
    publisher: Publisher, tmp_path: Path, trained: bytes
) -> None:
    document = publisher.prepare(tmp_path, trained).document
    other = encode_model(
        {name: tensor + np.float32(1) for name, tensor in decode_model(trained, architecture()).items()},
        architecture(),
    )
    with pytest.raises(InvalidDocument, match="not those the task committed to"):
        fetch_initial(changed(document, publisher.store, other, named=trained))
    with pytest.raises(InvalidArtifact):
        fetch_initial(changed(document, publisher.store, b"no model", named=b"no model"))
    with pytest.raises(Unavailable):
        fetch_initial(changed(document, publisher.store, bytes(2**22), named=bytes(2**22)))
    gone = document.model_copy(
        update={"data": document.data.model_copy(update={"gateways": ("http://127.0.0.1:1",)})}
    )
    with pytest.raises(Unavailable):
        fetch_initial(gone)


def provider(folder: Path, **changes: Any) -> Provider:
    """A provider on a network that does not answer."""
    write_private(folder / "provider.key", Key.generate().secret.hex())
    (folder / "network.json").write_text(chainless_network("http://127.0.0.1:1").model_dump_json())
    fields = {"key_file": "provider.key", "data_dir": "provider", "network": "network.json", **changes}
    return Provider(
        ProviderConfig(
            **fields | {name: folder / str(fields[name]) for name in ("key_file", "data_dir", "network")}
        )
    )


def offered(publisher: Publisher, folder: Path, trained: bytes, baseline: int = 0) -> dict[str, Any]:
    """An order that starts from the parameters, all of its data published."""
    prepared = publisher.prepare(folder, trained)
    for reference in prepared.document.data.fragments:
        publisher.store.publish(Cid.parse(reference.cid))
    return {
        "oid": "0x" + "ab" * 32,
        "blockHash": "0x" + "cd" * 32,
        "deadlineMs": int(time.time() * 1000) + 120_000,
        "claims": [],
        "order": {
            "trainWindow": "120",
            "taskLink": prepared.link,
            "taskHash": "0x" + prepared.document.digest().hex(),
            "baseline": str(baseline),
        },
    }


def claims_of(detail: dict[str, Any], folder: Path) -> list[Path]:
    """What a provider claims that starts from such parameters and changes nothing."""
    trainer = provider(folder, learning_rate=1e-12, patience_steps=1)
    job = Job(trainer, trainer.config, detail, folder / "order")
    with patch.object(trainer.network, "submit"):
        job.start()
        job.join(timeout_s=90)
    assert not job.running
    trainer.close()
    return list((folder / "order" / "claims").glob("*.safetensors"))


def test_a_provider_starts_from_the_task_s_parameters(
    publisher: Publisher, tmp_path: Path, trained: bytes, digits: Fragment
) -> None:
    """With a learning rate that changes nothing, the model it claims is as good as that it started from."""
    (claimed,) = claims_of(offered(publisher, tmp_path, trained), tmp_path)
    assert evaluate(claimed.read_bytes(), architecture(), [digits], "accuracy").score > 900_000


def test_a_provider_shows_nobody_what_does_not_beat_the_baseline(
    publisher: Publisher, tmp_path: Path, trained: bytes
) -> None:
    assert claims_of(offered(publisher, tmp_path, trained, baseline=1_000_000), tmp_path) == []
    now = standing(tmp_path / "order" / NAME)
    assert now is not None and now["event"] == "ended" and now["score"] > 900_000
    assert now.get("claimed_score") is None


@pytest.mark.parametrize("wanted", [True, False])
def test_orders_whose_client_named_the_test_fragments_may_be_left_alone(
    publisher: Publisher, tmp_path: Path, trained: bytes, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    detail = offered(publisher, tmp_path, trained)
    document = fetch_task(detail["order"])
    named = document.model_copy(
        update={"data": document.data.model_copy(update={"split": NamedSplit(test=(0,))})}
    )
    monkeypatch.setattr("offchain.provider.fetching.fetch_task", lambda order: named)
    trainer = provider(tmp_path, named_splits=wanted)
    asked = detail, trainer.config, threading.Event(), lambda: False
    if wanted:
        assert fetch_order(*asked) is not None
    else:
        with pytest.raises(Declined, match="named_splits"):
            fetch_order(*asked)
    trainer.close()


def test_what_takes_too_much_memory_on_a_cpu_may_fit_an_accelerator(
    publisher: Publisher, tmp_path: Path, trained: bytes
) -> None:
    detail, trainer = offered(publisher, tmp_path, trained), provider(tmp_path)
    architecture, batch_size = fetch_task(detail["order"]).architecture, trainer.config.batch_size
    narrow, wide = (estimate(architecture, batch_size, each).training_bytes for each in (2, 4))
    config = trainer.config.model_copy(update={"max_training_bytes": (narrow + wide) // 2})
    asked = detail, config, threading.Event(), lambda: False
    for device in (None, SimpleNamespace(platform="cpu")):
        with pytest.raises(Declined, match="more than this provider has"):
            fetch_order(*asked, device)
    assert fetch_order(*asked, SimpleNamespace(platform="gpu")) is not None
    trainer.close()
