"""What a provider has found is claimed: though the network is silent for a while, and after a kill."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.ledger.refusals import NotStaked, OrderFull, Refused
from offchain.config import ProviderConfig
from offchain.network import LedgerRefused, NetworkError
from offchain.provider import Provider
from offchain.provider.claims import ClaimedModels, Placing, Wanted
from offchain.provider.job import Job
from offchain.provider.progress import NAME, standing
from protocol.crypto import Key, sha256
from protocol.errors import InvalidArtifact
from tests.answers import claim
from tests.pool.one_order import Ledger, ledger

PATIENCE_S = 120.0
Json = dict[str, Any]


@pytest.fixture
def stands(tmp_path: Path) -> Iterator[Ledger]:
    with ledger(tmp_path / "network") as found:
        yield found


@pytest.fixture
def provider(stands: Ledger, tmp_path: Path) -> Iterator[Callable[[], Provider]]:
    """Makes the provider, and makes it again after its end."""
    settings = stands.write_actor(tmp_path / "provider", Key.generate(), patience_steps=1)
    made: list[Provider] = []

    def make() -> Provider:
        made.append(Provider(ProviderConfig.read(settings)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def job(provider: Provider, stands: Ledger, tmp_path: Path, *claims: Json) -> Job:
    """Training of the one order, on which these claims stand."""
    detail = dict(provider.network.get(f"/v1/orders/{stands.oids[0]}"), claims=list(claims))
    return Job(provider, provider.config, detail, tmp_path / "order")


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def claimed(stands: Ledger) -> list[str]:
    """Commitments that the ledger took, in their order."""
    return [each["message"]["commitment"] for each in stands.claims]


def test_a_claim_that_nobody_took_is_placed_after_the_training_s_end(
    stands: Ledger, provider: Callable[[], Provider], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "offchain.provider")
    stands.silent = True
    trainer = provider()
    working = job(trainer, stands, tmp_path)
    working.start()
    until(lambda: "training ended" in caplog.text)
    assert working.running and stands.turned_away and not stands.claims
    best = working.claims.latest()
    stands.silent = False
    working.join(PATIENCE_S)
    assert not working.running
    # The claim that may have been ordered goes first; what was found since then replaces it.
    assert best is not None and claimed(stands)[-1] == "0x" + best.hex() and len(stands.claims) <= 2
    now = standing(tmp_path / "order" / NAME)
    assert now is not None and now["event"] == "ended" and now["claimed_score"] == now["best_score"]


def test_a_claim_that_a_killed_process_could_not_place_is_placed_by_the_next(
    stands: Ledger, provider: Callable[[], Provider], tmp_path: Path
) -> None:
    stands.silent = True
    first = provider()
    killed = job(first, stands, tmp_path)
    killed.start()
    until(lambda: stands.turned_away)
    first.stopping.set()
    killed.join(PATIENCE_S)
    kept = killed.claims.latest()
    assert kept is not None and not killed.running and not stands.claims
    stands.silent = False
    again = job(provider(), stands, tmp_path)
    again.start()
    again.join(PATIENCE_S)
    assert claimed(stands)[0] == "0x" + kept.hex()


def test_a_claim_that_stands_is_not_sent_again_by_the_next_process(
    stands: Ledger, provider: Callable[[], Provider], tmp_path: Path
) -> None:
    first = provider()
    ended = job(first, stands, tmp_path)
    ended.start()
    ended.join(PATIENCE_S)
    before = claimed(stands)
    assert before
    second = provider()
    again = job(second, stands, tmp_path, claim(second.me, commitment=before[-1]))
    again.start()
    again.join(PATIENCE_S)
    assert before[-1] not in claimed(stands)[len(before) :]


@pytest.mark.parametrize("error", [RuntimeError, InvalidArtifact, OSError])
def test_a_training_that_breaks_is_seen_to_be_given_up(
    stands: Ledger,
    provider: Callable[[], Provider],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise error("RESOURCE_EXHAUSTED: no memory left on the device")

    monkeypatch.setattr("offchain.training.engine.train", breaks)
    broken = job(provider(), stands, tmp_path)
    broken.start()
    broken.join(PATIENCE_S)
    now = standing(tmp_path / "order" / NAME)
    assert now is not None and now["event"] == "given_up" and "RESOURCE_EXHAUSTED" in now["reason"]


class Taker:
    """Takes claims when it is told to; says whether the one sent last was ordered only then."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answers = threading.Semaphore(0)
        self.silent = True
        self.refusal: Refused | None = None
        """What the ledger answers, if it refuses."""
        self.stopping = threading.Event()
        self.over = False
        self.placed: list[Wanted] = []

    def submit(self, commitment: bytes) -> None:
        self.sent.append(commitment)
        assert self.answers.acquire(timeout=PATIENCE_S)
        if self.silent:
            raise NetworkError("nobody says whether it was ordered")
        if self.refusal is not None:
            raise LedgerRefused(self.refusal.code, str(self.refusal))

    def placing(self, folder: Path, submit: Callable[[bytes], None] | None = None) -> Placing:
        return Placing(
            ClaimedModels(folder),
            submit or self.submit,
            on_placed=self.placed.append,
            over=lambda: self.over,
            stopping=self.stopping,
        )


def commitment(number: int) -> bytes:
    return sha256(bytes([number]))


def offer(placing: Placing, number: int) -> None:
    placing.offer(Wanted(commitment(number), number, number), b"model %d" % number)


def kept(folder: Path) -> set[int]:
    """Numbers of the models on disk."""
    return {int(path.read_bytes().split()[1]) for path in folder.glob("*.safetensors")}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offchain.provider.claims.RETRY_S", 0.0)
    monkeypatch.setattr("offchain.provider.claims.STAKE_RETRY_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_models_of_claims_that_may_stand_are_kept_and_no_others(tmp_path: Path) -> None:
    """Also while a claim is under way, and while nobody knows what became of it."""
    taker = Taker()
    taker.silent = False
    placing = taker.placing(tmp_path)
    offer(placing, 1)
    taker.answers.release()
    placing.finish()
    assert [each.score for each in taker.placed] == [1]
    taker.silent = True
    offer(placing, 2)
    until(lambda: len(taker.sent) == 2)
    for number in (3, 4, 5):
        offer(placing, number)  # at once, though the second is under way
    assert kept(tmp_path) == {1, 2, 5}
    taker.answers.release()
    until(lambda: len(taker.sent) == 3)
    assert taker.sent[-1] == commitment(2), "which may have been ordered"
    taker.silent = False
    taker.answers.release(2)
    placing.finish()
    assert [each.score for each in taker.placed] == [1, 2, 5] and len(taker.sent) == 4
    offer(placing, 6)
    assert kept(tmp_path) == {5, 6}
    taker.answers.release()
    placing.finish()
    placing.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("end", ["over", "stopping"])
def test_what_is_found_last_gets_one_try(tmp_path: Path, end: str) -> None:
    taker = Taker()
    placing = taker.placing(tmp_path)
    taker.over = end == "over"
    if end == "stopping":
        taker.stopping.set()
    offer(placing, 1)
    taker.answers.release()
    placing.finish()
    assert taker.sent == [commitment(1)] and not taker.placed
    placing.close()


@pytest.mark.usefixtures("impatient")
def test_a_claim_without_free_stake_waits_for_it_or_for_a_better_one(tmp_path: Path) -> None:
    """Another order's settlement frees some, or the provider's owner adds some."""
    taker = Taker()
    taker.silent, taker.refusal = False, NotStaked("provider", 0, 1)
    placing = taker.placing(tmp_path)
    offer(placing, 1)
    until(lambda: taker.sent)
    for number in (2, 3):
        offer(placing, number)
        assert kept(tmp_path) == {number - 1, number}, "those refused do not pile up"
        taker.answers.release()
        until(lambda number=number: taker.sent[-1] == commitment(number))
    taker.answers.release()
    until(lambda: len(taker.sent) == 4)
    offer(placing, 4)
    assert kept(tmp_path) == {3, 4}, "the third may stand by now"
    taker.refusal = None
    taker.answers.release(2)
    placing.finish()
    assert taker.sent == [commitment(number) for number in (1, 2, 3, 3, 4)]
    assert [each.score for each in taker.placed] == [3, 4]
    placing.close()


@pytest.mark.usefixtures("impatient")
def test_a_claim_refused_for_another_reason_is_not_sent_again(tmp_path: Path) -> None:
    taker = Taker()
    taker.silent, taker.refusal = False, OrderFull("claims", 1)
    placing = taker.placing(tmp_path)
    offer(placing, 1)
    taker.answers.release()
    placing.finish()
    assert taker.sent == [commitment(1)] and not taker.placed
    placing.close()


@pytest.mark.usefixtures("impatient")
def test_a_refusal_does_not_mean_that_an_earlier_try_was_not_ordered(tmp_path: Path) -> None:
    taker = Taker()
    placing = taker.placing(tmp_path)
    offer(placing, 1)
    taker.answers.release()
    until(lambda: len(taker.sent) == 2)
    taker.silent, taker.refusal = False, NotStaked("provider", 0, 1)
    offer(placing, 2)
    taker.answers.release()
    until(lambda: taker.sent[-1] == commitment(2))
    offer(placing, 3)
    assert kept(tmp_path) == {1, 2, 3}
    taker.stopping.set()
    taker.answers.release(2)
    placing.finish()
    placing.close()


def test_what_is_kept_does_not_change_while_a_better_model_is_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training's thread goes through what stands, which a refusal changes."""
    taker = Taker()
    taker.silent, taker.refusal = False, OrderFull("claims", 1)
    placing = taker.placing(tmp_path)
    let_in: list[bool] = []

    def refused(models: ClaimedModels, commitment: bytes) -> None:
        better = threading.Thread(target=offer, args=(placing, 2))
        better.start()
        better.join(0.2)
        let_in.append(not better.is_alive())

    monkeypatch.setattr(ClaimedModels, "refused", refused)
    taker.answers.release()
    offer(placing, 1)
    until(lambda: let_in)
    monkeypatch.undo()
    assert let_in == [False]
    until(lambda: len(taker.sent) == 2)
    taker.answers.release()
    placing.finish()
    placing.close()


def test_after_a_kill_no_model_is_dropped_whose_claim_may_have_been_sent(tmp_path: Path) -> None:
    killed = Taker()
    placing = killed.placing(tmp_path)
    offer(placing, 1)
    until(lambda: killed.sent)
    offer(placing, 2)
    again = Taker()
    again.silent = False
    placing = again.placing(tmp_path)
    placing.take_up(standing=None)
    until(lambda: again.sent == [commitment(2)])
    offer(placing, 3)
    assert kept(tmp_path) == {1, 2, 3}
    again.answers.release(2)
    placing.finish()
    assert [each.step for each in again.placed] == [None, 3]
    placing.close()
    killed.stopping.set()
    killed.answers.release()


def test_a_bug_in_sending_is_logged_and_ends_no_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker()
    errors = iter((ZeroDivisionError("a bug"), None))

    def breaks(commitment: bytes) -> None:
        if (error := next(errors)) is not None:
            raise error

    placing = taker.placing(tmp_path, breaks)
    offer(placing, 1)
    placing.finish()
    offer(placing, 2)
    placing.finish()
    assert "a bug" in caplog.text and [each.score for each in taker.placed] == [2]
    placing.close()
