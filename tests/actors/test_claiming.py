"""What a provider has found is claimed: though the network is silent for a while, and after a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.config import ProviderConfig
from offchain.provider import Provider
from offchain.provider.claims import KEPT, ClaimedModels
from offchain.provider.job import Job
from offchain.provider.progress import NAME, standing
from protocol.crypto import Key, sha256
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
    assert best is not None and claimed(stands) == ["0x" + best.hex()]
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


def test_a_training_that_breaks_is_seen_to_be_given_up(
    stands: Ledger, provider: Callable[[], Provider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: no memory left on the device")

    monkeypatch.setattr("offchain.training.engine.train", breaks)
    broken = job(provider(), stands, tmp_path)
    broken.start()
    broken.join(PATIENCE_S)
    now = standing(tmp_path / "order" / NAME)
    assert now is not None and now["event"] == "given_up" and "RESOURCE_EXHAUSTED" in now["reason"]


def test_the_model_of_the_claim_that_stands_is_kept_whatever_comes_after_it(tmp_path: Path) -> None:
    models = ClaimedModels(tmp_path)
    standing_one, *later = (sha256(bytes([index])) for index in range(KEPT + 3))
    models.keep(standing_one, b"the one that stands")
    models.placed(standing_one)
    for index, commitment in enumerate(later):
        models.keep(commitment, bytes([index]))
    assert models.find(standing_one) == b"the one that stands"
    found = [models.find(commitment) is not None for commitment in later]
    assert found == [False] * (len(later) - KEPT) + [True] * KEPT
    assert models.latest() == later[-1]
