"""Scoring the revealed models of an order: the work that validators, verifiers and jurors share.

`Judge.answer` is PoT.Validate's evaluation: the exact score of a model on the released test set, or the
INVALID outcome when the file provably is no model of the order. When something cannot be fetched there is no
answer: an honest judge abstains, because what it cannot see it cannot judge. What it tried in vain to fetch
it counts in `Judge.absences`; `gone` lists what it may report.

Source: PoT 2.4 "Validating the Models", "Verifying the Validations", 3.4 "Achieving Retrievability".
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from offchain.absences import Absences, Thing
from offchain.evaluation.means import USUAL_MEANS, Means
from offchain.evaluation.memory import OverBudget
from offchain.evaluation.score import evaluate
from offchain.files import write_whole
from offchain.material import (
    fetch_model,
    fetch_task,
    fetch_test,
    probe_model,
    probe_test,
    read_fragments,
    unhex,
)
from offchain.storage import InvalidCid, Unavailable
from protocol import tracing
from protocol.errors import InvalidArtifact, InvalidDocument
from protocol.task import TaskDocument
from protocol.transactions import INVALID_SCORE, IRRETRIEVABLE_SCORE, retrieval_digest

log = logging.getLogger(__name__)

Json = dict[str, Any]
Answer = tuple[int, bytes]

INVALID_ANSWER: Answer = (INVALID_SCORE, bytes(32))
IRRETRIEVABLE_ANSWER: Answer = (IRRETRIEVABLE_SCORE, bytes(32))


class Judge:
    """Answers about models, remembered on disk by order and model."""

    def __init__(
        self,
        folder: Path,
        means: Means = USUAL_MEANS,
        on_scored: Callable[[str, float], None] = lambda result, took_s: None,
        on_sampled: Callable[[str, bool], None] = lambda account, came: None,
    ) -> None:
        """
        Args:
            on_scored: is told of every scoring how it ended and how many seconds it took.
            on_sampled: is told of every sample which account serves it, and whether it came.
        """
        self._means = means
        self._on_scored, self._on_sampled = on_scored, on_sampled
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.absences = Absences()
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
        known = self.recall(detail["oid"], claim["mid"])
        if known is not None:
            return known
        try:
            task = self._task(detail)
            test = self._test(detail, task)
        except (Unavailable, InvalidDocument, InvalidArtifact, InvalidCid) as reason:
            log.warning("order %s cannot be judged: %s", detail["oid"], reason)
            return None
        model = self._model(detail, claim, task)
        if model is None:
            return None
        began_s, result = time.monotonic(), "over_budget"
        try:
            with tracing.span("score", detail["oid"], mid=claim["mid"]):
                answer = self._score(model, claim, task, test)
            result = "invalid" if answer == INVALID_ANSWER else "scored"
        except OverBudget as reason:
            # This machine's limit says nothing about the model.
            log.warning("abstaining on %s: %s", claim["mid"], reason)
            return None
        finally:
            self._on_scored(result, time.monotonic() - began_s)
        self._remember(detail["oid"], claim["mid"], answer)
        return answer

    def test_answer(self, detail: Json) -> Answer | None:
        """What to say of the released test set: its digest if it ever came, none while it has not.

        Whoever had it once says so although it may be gone now: it was released, and models were scored.
        """
        known = self.recall(detail["oid"], _test_set(detail))
        if known is None:
            try:
                self._test(detail, self._task(detail))
            except (Unavailable, InvalidDocument, InvalidArtifact, InvalidCid) as reason:
                log.warning("the test set of order %s: %s", detail["oid"], reason)
            known = self.recall(detail["oid"], _test_set(detail))
        return known

    def can_fetch(self, detail: Json, mid: str) -> bool | None:
        """Whether a model comes now, tried once in each phase that it came; none if nobody can tell."""
        if self.absences.has_come(_thing(detail, mid)):
            return True
        try:
            task = self._task(detail)
        except (Unavailable, InvalidDocument, InvalidCid) as reason:
            log.warning("order %s cannot be judged: %s", detail["oid"], reason)
            return None
        return any(self._model(detail, claim, task) is not None for claim in claims_on(detail, mid))

    def is_gone(self, detail: Json, subject: str) -> bool:
        """Whether to say that a model or the test set cannot be had."""
        return self.absences.is_gone(_thing(detail, subject), _now_ms(), detail["deadlineMs"])

    def gone(self, detail: Json) -> Iterator[str]:
        """Subjects that may be reported: revealed models, and the test set while nobody has scored."""
        return (subject for subject in _reportable(detail) if self.is_gone(detail, subject))

    def sample(self, detail: Json, choose: Callable[[int], int]) -> None:
        """Ask for a random block of something that may be reported, or for all of what failed before.

        Args:
            choose: a number below the one it is given, each as likely.
        """
        subjects = _reportable(detail)
        failing = [each for each in subjects if self.absences.is_failing(_thing(detail, each))]
        if not subjects:
            return
        subject = (failing or subjects)[choose(len(failing or subjects))]
        try:
            task = self._task(detail)
            if failing:
                self._look_again(detail, task, subject)
            else:
                self._probe(detail, task, subject, choose)
        except (Unavailable, InvalidDocument, InvalidCid) as reason:
            log.warning("order %s cannot be sampled: %s", detail["oid"], reason)

    def _probe(self, detail: Json, task: TaskDocument, subject: str, choose: Callable[[int], int]) -> None:
        claims = [claim for claim in claims_on(detail, subject) if claim["links"]]
        of_test_set = subject == _test_set(detail)
        if not (detail["testLinks"] if of_test_set else claims):
            return
        claim = None if of_test_set else claims[choose(len(claims))]
        server = detail["client"] if claim is None else claim["provider"]
        try:
            if claim is None:
                probe_test(task, unhex(detail["blockHash"]), detail["testLinks"], choose)
            else:
                probe_model(claim, choose)
        except (Unavailable, InvalidCid) as reason:
            log.warning("a sample of %s does not come: %s", subject, reason)
            self.absences.lapsed(_thing(detail, subject), _now_ms())
            self._on_sampled(server, False)
        else:
            self._on_sampled(server, True)

    def _look_again(self, detail: Json, task: TaskDocument, subject: str) -> None:
        """All of what failed before, as a jury would try to fetch it."""
        if subject != _test_set(detail):
            for claim in claims_on(detail, subject):
                came = self._model(detail, claim, task) is not None
                self._on_sampled(claim["provider"], came)
                if came:
                    return
            return
        came = False
        try:
            with self._watched(detail, Unavailable, InvalidDocument, InvalidCid):
                fetch_test(task, unhex(detail["blockHash"]), detail["testLinks"] or [])
            came = True
        finally:
            self._on_sampled(detail["client"], came)
        self.absences.came(_thing(detail, subject))

    def _model(self, detail: Json, claim: Json, task: TaskDocument) -> bytes | None:
        """The file of a claimed model, or none; either way its absences are kept."""
        try:
            with tracing.span("fetch model", detail["oid"], mid=claim["mid"]):
                model = fetch_model(claim, task)
        except Unavailable as reason:
            log.warning("abstaining on %s: %s", claim["mid"], reason)
            self.absences.missed(_thing(detail, claim["mid"]), _now_ms())
            return None
        self.absences.came(_thing(detail, claim["mid"]))
        return model

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
            # A document that came and cannot be read says more of this machine's version than of the client.
            with self._watched(detail, Unavailable):
                self._tasks = {detail["oid"]: fetch_task(detail["order"])}
        return self._tasks[detail["oid"]]

    def _test(self, detail: Json, task: TaskDocument) -> Any:
        if detail["oid"] not in self._tests:
            with (
                self._watched(detail, Unavailable, InvalidDocument, InvalidCid),
                tracing.span("fetch test set", detail["oid"]),
            ):
                files = fetch_test(task, unhex(detail["blockHash"]), detail["testLinks"] or [])
            self.absences.came(_thing(detail, _test_set(detail)))
            self._remember(detail["oid"], _test_set(detail), (0, retrieval_digest(files)))
            self._tests = {detail["oid"]: read_fragments(task, files)}
        return self._tests[detail["oid"]]

    @contextlib.contextmanager
    def _watched(self, detail: Json, *missing: type[Exception]) -> Iterator[None]:
        """Count what the client must serve and does not: without its task document no test set is known."""
        try:
            yield
        except missing:
            self.absences.missed(_thing(detail, _test_set(detail)), _now_ms())
            raise

    def _path(self, oid: str, mid: str) -> Path:
        return self._folder / f"{oid[2:18]}-{mid[2:]}.json"

    def recall(self, oid: str, mid: str) -> Answer | None:
        """What was once answered on a model, or under its data root on the test set."""
        try:
            fields = json.loads(self._path(oid, mid).read_text())
            return int(fields["score"]), unhex(fields["digest"])
        except (OSError, ValueError, KeyError):
            return None

    def _remember(self, oid: str, mid: str, answer: Answer) -> None:
        fields = {"score": str(answer[0]), "digest": "0x" + answer[1].hex()}
        write_whole(self._path(oid, mid), json.dumps(fields))


def _reportable(detail: Json) -> list[str]:
    """Revealed models, and the test set while nobody has scored."""
    subjects = sorted({claim["mid"] for claim in detail["claims"] if claim["mid"] is not None})
    if all(item["score"] is None for item in detail["validations"]):
        subjects.append(_test_set(detail))
    return subjects


def claims_on(detail: Json, mid: str) -> list[Json]:
    """The claims that revealed a model, each with links of its own."""
    return [claim for claim in detail["claims"] if claim["mid"] == mid]


def _test_set(detail: Json) -> str:
    return str(detail["order"]["dataRoot"])


def _thing(detail: Json, subject: str) -> Thing:
    return detail["oid"], detail["phase"], subject


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
