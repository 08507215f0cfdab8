"""A judge whose memory a model exceeds says nothing about it, and does not remember it as judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offchain import judging
from offchain.data import Fragment
from offchain.evaluation import conformance
from offchain.evaluation.means import Means
from offchain.models.artifact import encode_model


def test_a_judge_abstains_on_what_exceeds_its_memory_and_answers_once_it_has_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = conformance.models()["dense"]
    model = encode_model(conformance.parameters("dense", architecture), architecture)
    x = conformance.inputs("dense", architecture)
    test = [Fragment(x, np.zeros(len(x), np.int32))]
    task = SimpleNamespace(architecture=architecture, metric="accuracy")
    monkeypatch.setattr(judging, "fetch_task", lambda order: task)
    monkeypatch.setattr(judging, "fetch_test", lambda *of: [b"a file"])
    monkeypatch.setattr(judging, "read_fragments", lambda *of: test)
    monkeypatch.setattr(judging, "fetch_model", lambda *of: model)
    claim: dict[str, Any] = {"mid": "0x" + "11" * 32, "sizeBytes": len(model)}
    detail: dict[str, Any] = {
        "oid": "0x" + "22" * 32,
        "phase": "validation",
        "order": {"dataRoot": "0x" + "44" * 32},
        "blockHash": "0x" + "33" * 32,
        "testLinks": [],
        "claims": [claim],
    }
    assert judging.Judge(tmp_path, Means(memory_bytes=1000)).answers(detail) == {}
    answer = judging.Judge(tmp_path).answers(detail)[claim["mid"]]
    assert answer != judging.INVALID_ANSWER and 0 <= answer[0] <= 1_000_000
    # Answered is answered: what is remembered needs no memory.
    assert judging.Judge(tmp_path, Means(memory_bytes=1000)).answers(detail) == {claim["mid"]: answer}
