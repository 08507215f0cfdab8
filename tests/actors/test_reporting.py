"""Validators, verifiers and jurors before links that are dead, dead for a while, or dead again.

The network is a script of order details; files come from a real gateway or from none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offchain import judging
from offchain.config import ProviderConfig, VerifierConfig
from offchain.data import Fragment
from offchain.evaluation import conformance
from offchain.judging import IRRETRIEVABLE_ANSWER
from offchain.models.artifact import encode_model
from offchain.network import LedgerRefused
from offchain.provider import Provider
from offchain.storage import Unavailable
from offchain.verifier import Verifier
from protocol.crypto import Key, commitment, keccak256
from protocol.errors import InvalidDocument
from protocol.keyfile import write_private
from protocol.transactions import (
    Appeal,
    IrretrievableReport,
    Verdict,
    VerdictReveal,
    retrieval_digest,
    score_body,
)
from tests.chain import chainless_network

OID, ROOT = "0x" + "22" * 32, "0x" + "44" * 32
MID = "0x" + "11" * 32
NOW_MS = 1_700_000_000_000
WINDOW_MS = 10_000
Json = dict[str, Any]


class Scripted:
    """Stands where the network would: takes what is sent, and refuses openings that do not open."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.sent: list[tuple[Any, Json]] = []
        self.committed: bytes | None = None

    def submit(self, kind: Any, **fields: Any) -> None:
        if kind is Verdict:
            self.committed = fields["commitment"]
        if kind is VerdictReveal:
            body = score_body(fields["mid"], fields["score"], fields["digest"])
            if commitment(fields["oid"], self.key.address, body, fields["salt"]) != self.committed:
                raise LedgerRefused("Mismatch", "what is revealed does not open the commitment")
        self.sent.append((kind, fields))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A time that tests move."""
    now = SimpleNamespace(ms=NOW_MS)
    monkeypatch.setattr(judging, "_now_ms", lambda: now.ms)
    yield now


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Which files can be fetched; tests switch them."""
    architecture = conformance.models()["dense"]
    model = encode_model(conformance.parameters("dense", architecture), architecture)
    x = conformance.inputs("dense", architecture)
    task = SimpleNamespace(architecture=architecture, metric="accuracy")
    up = SimpleNamespace(model=True, test=True, tries=0, size=len(model))

    def fetch_model(*of: Any) -> bytes:
        up.tries += 1
        if not up.model:
            raise Unavailable("nobody answers")
        return model

    def fetch_test(*of: Any) -> list[bytes]:
        if not up.test:
            raise Unavailable("nobody answers")
        return [b"the only fragment"]

    monkeypatch.setattr(judging, "fetch_task", lambda order: task)
    monkeypatch.setattr(judging, "fetch_test", fetch_test)
    monkeypatch.setattr(judging, "fetch_model", fetch_model)
    monkeypatch.setattr(judging, "read_fragments", lambda *of: [Fragment(x, np.zeros(len(x), np.int32))])
    return up


def scripted(kind: Any, config: Any, folder: Path) -> Any:
    """An actor whose network is a script."""
    key = Key(keccak256(b"an actor"))
    (folder / "network.json").write_text(chainless_network("http://127.0.0.1:1").model_dump_json())
    write_private(folder / "actor.key", key.secret.hex())
    actor = kind(
        config(key_file=folder / "actor.key", data_dir=folder / "data", network=folder / "network.json")
    )
    actor.network.close()
    actor.network = Scripted(key)
    return actor


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    """A verifier whose network is a script."""
    actor: Verifier = scripted(Verifier, VerifierConfig, tmp_path)
    return actor


def order(phase: str, links: SimpleNamespace, **more: Any) -> Json:
    """An order's detail with one revealed model."""
    return {
        "oid": OID,
        "phase": phase,
        "client": "0xclient",
        "deadlineMs": NOW_MS + WINDOW_MS,
        "order": {"dataRoot": ROOT},
        "blockHash": "0x" + "33" * 32,
        "testLinks": [],
        "parameters": {"min_challenge_stake_wei": "5"},
        "claims": [{"provider": "0xprovider", "mid": MID, "sizeBytes": links.size, "links": []}],
        "validations": [],
        "challenges": [],
        "reports": [],
        "disputes": [],
        "appeals": [],
    } | more


def rounds(actor: Any, clock: SimpleNamespace, details: list[Json], count: int = 20) -> None:
    """The actor looks at the same orders so many times, twenty to a window."""
    actor.orders_in = lambda *phases: [d for d in details if d["phase"] in phases]
    for _ in range(count):
        actor.act()
        clock.ms += WINDOW_MS // 20


def sent(actor: Any, kind: Any) -> list[Json]:
    """What was sent of one kind."""
    return [fields for of, fields in actor.network.sent if of is kind]


# Reports -------------------------------------------------------------------------------------------------


def test_a_model_that_never_comes_is_reported_once(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.model = False
    rounds(verifier, clock, [order("validation", links)])
    assert sent(verifier, IrretrievableReport) == [
        {"oid": bytes.fromhex(OID[2:]), "subject": bytes.fromhex(MID[2:]), "role": 3}
    ]


def test_a_link_that_hiccups_is_not_reported(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.model = False
    rounds(verifier, clock, [order("validation", links)], count=9)
    links.model = True
    rounds(verifier, clock, [order("validation", links)], count=9)
    links.model = False
    rounds(verifier, clock, [order("validation", links)], count=2)
    assert not sent(verifier, IrretrievableReport)


def test_what_somebody_reported_already_is_left_to_the_jury(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.model = False
    rounds(verifier, clock, [order("validation", links, reports=[{"subject": MID}])])
    assert not sent(verifier, IrretrievableReport)


def test_a_provider_that_leaves_after_it_was_scored_is_reported_in_the_challenge_phase(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    rounds(verifier, clock, [order("validation", links)], count=2)
    links.model, clock.ms = False, NOW_MS
    scored = {"vid": "0x" + "55" * 32, "mid": MID, "validator": "0xv"}
    answer = verifier.judge.recall(OID, MID)
    assert answer is not None
    scored |= {"score": str(answer[0]), "digest": "0x" + answer[1].hex()}
    rounds(verifier, clock, [order("challenge", links, validations=[scored])])
    assert len(sent(verifier, IrretrievableReport)) == 1


def test_a_model_that_comes_is_fetched_once_in_a_phase(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    scored = {"vid": "0x" + "55" * 32, "mid": MID, "validator": "0xv", "score": "1", "digest": "0x00"}
    rounds(verifier, clock, [order("validation", links)])
    rounds(verifier, clock, [order("challenge", links, validations=[scored])])
    assert links.tries == 2


def test_a_test_set_that_never_comes_is_reported_as_such(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.test = False
    rounds(verifier, clock, [order("validation", links)])
    assert [fields["subject"] for fields in sent(verifier, IrretrievableReport)] == [bytes.fromhex(ROOT[2:])]


def test_a_task_that_this_machine_cannot_read_is_no_reason_to_report_the_test_set(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(order: Json) -> Any:
        raise InvalidDocument("a field of a later version")

    monkeypatch.setattr(judging, "fetch_task", unreadable)
    rounds(verifier, clock, [order("validation", links)])
    assert not sent(verifier, IrretrievableReport)


def test_an_operator_may_choose_not_to_report(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    verifier.config = verifier.config.model_copy(update={"report": False})
    links.model = False
    rounds(verifier, clock, [order("validation", links)])
    assert not sent(verifier, IrretrievableReport)


# Votes ---------------------------------------------------------------------------------------------------


def dispute(verifier: Any, of: str = "model", **more: Any) -> Json:
    """A dispute in which the verifier has a seat."""
    seat = {"juror": verifier.me, "committed": False, "score": None}
    return {
        "mid": MID if of == "model" else ROOT,
        "of": of,
        "round": 1,
        "open": True,
        "jurors": [seat],
    } | more


def judged(
    verifier: Any, links: SimpleNamespace, clock: SimpleNamespace, of: Json, **more: Any
) -> tuple[int, bytes] | None:
    """What the verifier commits to in the verdict window and then opens, if anything."""
    clock.ms = NOW_MS
    rounds(verifier, clock, [order("verdict", links, disputes=[of], **more)])
    if not sent(verifier, Verdict):
        return None
    of["jurors"][0]["committed"] = True
    rounds(verifier, clock, [order("verdict_reveal", links, disputes=[of], **more)], count=1)
    (opened,) = sent(verifier, VerdictReveal)
    return opened["score"], opened["digest"]


def test_a_juror_says_of_a_reported_model_what_it_is_worth_if_it_comes(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    said = judged(verifier, links, clock, dispute(verifier), reports=[{"subject": MID}])
    assert said is not None and said == verifier.judge.recall(OID, MID)


def test_a_juror_that_scored_a_model_before_it_went_looks_again_if_it_was_reported(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    rounds(verifier, clock, [order("validation", links)], count=2)
    links.model = False
    of = dispute(verifier)
    assert judged(verifier, links, clock, of, reports=[{"subject": MID}]) == IRRETRIEVABLE_ANSWER


def test_a_juror_opens_what_it_committed_to_though_the_model_is_back(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    rounds(verifier, clock, [order("validation", links)], count=2)
    links.model = False
    of, reports = dispute(verifier), [{"subject": MID}]
    clock.ms = NOW_MS
    rounds(verifier, clock, [order("verdict", links, disputes=[of], reports=reports)])
    links.model, of["jurors"][0]["committed"] = True, True
    rounds(verifier, clock, [order("verdict_reveal", links, disputes=[of], reports=reports)], count=1)
    (opened,) = sent(verifier, VerdictReveal)
    assert (opened["score"], opened["digest"]) == IRRETRIEVABLE_ANSWER


def test_a_juror_does_not_give_a_model_up_at_the_first_failure(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.model = False
    reported = order("verdict", links, disputes=[dispute(verifier)], reports=[{"subject": MID}])
    rounds(verifier, clock, [reported], count=10)
    assert not sent(verifier, Verdict) and links.tries == 10, "it tried for half of the window"
    rounds(verifier, clock, [reported], count=1)
    assert len(sent(verifier, Verdict)) == 1


def test_a_juror_of_the_test_set_shows_that_it_has_it_though_it_is_gone_now(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    rounds(verifier, clock, [order("validation", links)], count=2)
    links.test = False
    said = judged(verifier, links, clock, dispute(verifier, "test set"), reports=[{"subject": ROOT}])
    assert said == (0, retrieval_digest([b"the only fragment"]))


def test_a_juror_that_never_had_the_test_set_says_so(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.test = False
    said = judged(verifier, links, clock, dispute(verifier, "test set"), reports=[{"subject": ROOT}])
    assert said == IRRETRIEVABLE_ANSWER


def test_a_dead_test_set_is_no_reason_to_call_a_model_gone(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    links.test = False
    assert judged(verifier, links, clock, dispute(verifier), reports=[{"subject": MID}]) is None


def test_a_commitment_in_a_later_round_does_not_show_what_the_earlier_one_said(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    for number in (1, 2, 3):
        clock.ms = NOW_MS
        rounds(
            verifier, clock, [order("verdict", links, disputes=[dispute(verifier, round=number)])], count=1
        )
    assert len({fields["commitment"] for fields in sent(verifier, Verdict)}) == 3


def test_a_seat_in_a_round_that_is_over_is_not_taken(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    assert judged(verifier, links, clock, dispute(verifier, open=False)) is None


def test_a_provider_judges_where_a_larger_jury_is_called(
    tmp_path: Path, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    provider = scripted(Provider, ProviderConfig, tmp_path)
    said = judged(provider, links, clock, dispute(provider, round=3))
    assert said is not None and said == provider.judge.recall(OID, MID)


def test_a_provider_is_told_once_that_its_model_was_reported(
    tmp_path: Path, links: SimpleNamespace, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    provider = scripted(Provider, ProviderConfig, tmp_path)
    mine = [{"provider": provider.me, "mid": MID, "sizeBytes": links.size, "links": []}]
    rounds(
        provider, clock, [order("validation", links, claims=mine, reports=[{"subject": MID, "id": "0xr"}])]
    )
    assert caplog.text.count("was reported as irretrievable") == 1
    assert not provider.network.sent


# Appeals -------------------------------------------------------------------------------------------------


def overruled(verifier: Verifier, links: SimpleNamespace, score: int) -> Json:
    """An order in the window for appeals whose verdict is not what the verifier's challenge said."""
    answer = verifier.judge.recall(OID, MID)
    assert answer is not None
    mine = {"score": str(score), "digest": "0x" + answer[1].hex()}
    other = {"score": "17", "digest": "0x" + bytes(32).hex()}
    return order(
        "appeal",
        links,
        validations=[{"vid": "0xvid", "mid": MID, "validator": "0xv", **other}],
        challenges=[{"vid": "0xvid", "challenger": verifier.me, **mine}],
        disputes=[dispute(verifier, open=False) | {"verdict": other}],
    )


def test_who_was_overruled_and_finds_the_same_again_appeals_if_its_operator_wants_it(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    rounds(verifier, clock, [order("validation", links)], count=1)
    answer = verifier.judge.recall(OID, MID)
    assert answer is not None
    detail = overruled(verifier, links, answer[0])
    rounds(verifier, clock, [detail])
    assert not sent(verifier, Appeal)
    assert caplog.text.count("dtn verifier appeal") == 1
    verifier.config = verifier.config.model_copy(update={"appeal": True})
    verifier._contested.clear()
    rounds(verifier, clock, [detail])
    assert [fields["role"] for fields in sent(verifier, Appeal)] == [3]


def test_nobody_appeals_for_work_that_it_finds_wrong_itself(
    verifier: Verifier, links: SimpleNamespace, clock: SimpleNamespace
) -> None:
    verifier.config = verifier.config.model_copy(update={"appeal": True})
    rounds(verifier, clock, [order("validation", links)], count=1)
    answer = verifier.judge.recall(OID, MID)
    assert answer is not None
    rounds(verifier, clock, [overruled(verifier, links, answer[0] + 1)])
    assert not sent(verifier, Appeal)
