"""Scoring the revealed models of an order: the work that validators, verifiers and jurors share.

`Judge.answer` is PoT.Validate's evaluation: the exact score of a model on the released test set, or the
INVALID outcome when the file provably is no model of the order. When something cannot be fetched there is no
answer: an honest judge abstains, because what it cannot see it cannot judge.

Source: PoT 2.4 "Validating the Models", "Verifying the Validations".
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from offchain.evaluation.means import USUAL_MEANS, Means
from offchain.evaluation.memory import OverBudget
from offchain.evaluation.score import evaluate
from offchain.material import fetch_model, fetch_task, fetch_test, unhex
from offchain.storage import InvalidCid, Unavailable
from protocol.errors import InvalidArtifact, InvalidDocument
from protocol.task import TaskDocument
from protocol.transactions import INVALID_SCORE

log = logging.getLogger(__name__)

Json = dict[str, Any]
Answer = tuple[int, bytes]

INVALID_ANSWER: Answer = (INVALID_SCORE, bytes(32))


class Judge:
    """Answers about models, remembered on disk by order and model."""

    def __init__(self, folder: Path, means: Means = USUAL_MEANS) -> None:
        self._means = means
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._tasks: dict[str, TaskDocument] = {}
        self._tests: dict[str, Any] = {}

    def answers(self, detail: Json) -> dict[str, Answer]:
        """By MID, the answer on every revealed model of an order that can be judged now."""
        found = {}
        for claim in detail["claims"]:
            if claim["mid"] is not None and claim["mid"] not in found:
                answer = self.answer(detail, claim)
                if answer is not None:
                    found[claim["mid"]] = answer
        return found

    def answer(self, detail: Json, claim: Json) -> Answer | None:
        """The answer on one revealed model; none if something cannot be fetched."""
        known = self._recall(detail["oid"], claim["mid"])
        if known is not None:
            return known
        try:
            task = self._task(detail)
            test = self._test(detail, task)
        except (Unavailable, InvalidDocument, InvalidArtifact, InvalidCid) as reason:
            log.warning("order %s cannot be judged: %s", detail["oid"], reason)
            return None
        try:
            model = fetch_model(claim, task)
        except Unavailable as reason:
            log.warning("abstaining on %s: %s", claim["mid"], reason)
            return None
        try:
            answer = self._score(model, claim, task, test)
        except OverBudget as reason:
            # This machine's limit says nothing about the model.
            log.warning("abstaining on %s: %s", claim["mid"], reason)
            return None
        self._remember(detail["oid"], claim["mid"], answer)
        return answer

    def _score(self, model: bytes, claim: Json, task: TaskDocument, test: Any) -> Answer:
        if len(model) != claim["sizeBytes"]:
            log.warning("model %s is not as large as claimed", claim["mid"])
            return INVALID_ANSWER
        try:
            result = evaluate(model, task.architecture, test, task.metric, means=self._means)
        except InvalidArtifact as reason:
            log.warning("model %s is no model of the order: %s", claim["mid"], reason)
            return INVALID_ANSWER
        return result.score, result.digest

    def _task(self, detail: Json) -> TaskDocument:
        if detail["oid"] not in self._tasks:
            self._tasks = {detail["oid"]: fetch_task(detail["order"])}
        return self._tasks[detail["oid"]]

    def _test(self, detail: Json, task: TaskDocument) -> Any:
        if detail["oid"] not in self._tests:
            block_hash = unhex(detail["blockHash"])
            self._tests = {detail["oid"]: fetch_test(task, block_hash, detail["testLinks"] or [])}
        return self._tests[detail["oid"]]

    def _path(self, oid: str, mid: str) -> Path:
        return self._folder / f"{oid[2:18]}-{mid[2:]}.json"

    def _recall(self, oid: str, mid: str) -> Answer | None:
        try:
            fields = json.loads(self._path(oid, mid).read_text())
            return int(fields["score"]), unhex(fields["digest"])
        except (OSError, ValueError, KeyError):
            return None

    def _remember(self, oid: str, mid: str, answer: Answer) -> None:
        path = self._path(oid, mid)
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps({"score": str(answer[0]), "digest": "0x" + answer[1].hex()}))
        os.replace(partial, path)
