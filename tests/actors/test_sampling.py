"""Whoever goes dark after it was scored is noticed by random samples, and whoever hiccups is not reported."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain import judging
from offchain.config import ValidatorConfig, VerifierConfig
from offchain.judging import Judge
from offchain.sampling import MOST_INTERVAL_MS, MOST_REMEMBERED, Sampler
from offchain.storage import Cid, EmbeddedStore, Gateway, Unavailable, link_to, probe
from offchain.storage.cid import RAW
from offchain.storage.unixfs import CHUNK_BYTES, build
from offchain.uptime import Seen, Uptime, read_uptime
from offchain.validator import Validator
from offchain.verifier import Verifier
from protocol.crypto import sha256
from protocol.transactions import IrretrievableReport
from tests.actors.test_reporting import NOW_MS, OID, ROOT, WINDOW_MS, scripted

DATA = random.Random(9).randbytes(3 * CHUNK_BYTES + 100)
CID, BLOCKS = build(DATA)
LEAVES = [cid for cid in BLOCKS if cid.codec == RAW]
MID = "0x" + sha256(DATA).hex()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[EmbeddedStore, str]]:
    """A model on a running gateway, and its link."""
    store = EmbeddedStore(tmp_path / "served")
    store.publish(store.put(DATA))
    gateway = Gateway(store)
    gateway.start()
    yield store, link_to(gateway.url, CID)
    gateway.stop()


def hide(store: EmbeddedStore, *cids: Cid) -> None:
    """Serve these blocks no more."""
    for cid in cids:
        (store._path / "public" / str(cid)).unlink(missing_ok=True)


# One sample ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", range(4))
def test_a_sample_asks_for_the_leaf_that_holds_the_drawn_byte_alone(
    served: tuple[EmbeddedStore, str], leaf: int
) -> None:
    store, link = served
    hide(store, *(cid for cid in LEAVES if cid != LEAVES[leaf]))
    gateway = link.partition("/ipfs/")[0]
    for place in (leaf * CHUNK_BYTES, min((leaf + 1) * CHUNK_BYTES, len(DATA)) - 1):
        probe(CID, [gateway], lambda size, place=place: place)  # type: ignore[misc]
    hide(store, LEAVES[leaf])
    with pytest.raises(Unavailable, match="404"):
        probe(CID, [gateway], lambda size: leaf * CHUNK_BYTES)


def test_a_provider_that_drops_one_block_of_four_is_found_by_few_samples(
    served: tuple[EmbeddedStore, str],
) -> None:
    store, link = served
    hide(store, LEAVES[2])
    choose, missed = random.Random(1).randrange, 0
    for _ in range(24):
        try:
            probe(CID, [link.partition("/ipfs/")[0]], choose)
        except Unavailable:
            missed += 1
    assert 3 <= missed <= 12, "about a third of the bytes are gone"


# When to look --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_s", [10, 300, 86_400])
def test_looks_are_spread_over_the_window_and_bounded(window_s: int) -> None:
    looks: list[int] = []
    now = SimpleNamespace(ms=NOW_MS)
    judge: Any = SimpleNamespace(sample=lambda *_: looks.append(now.ms))
    sampler = Sampler(judge, random.Random(1).randrange)
    detail = {"oid": OID, "phase": "challenge", "deadlineMs": NOW_MS + window_s * 1000}
    for second in range(0, window_s, max(1, window_s // 5000)):
        now.ms = NOW_MS + second * 1000
        sampler.look(detail, now.ms)
    assert 4 <= len(looks) <= window_s * 1000 // MOST_INTERVAL_MS + 150
    for number in range(2 * MOST_REMEMBERED):
        sampler.look(detail | {"oid": str(number)}, NOW_MS)
    assert len(sampler._next_ms) <= MOST_REMEMBERED


# Going dark ----------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that tests move."""
    now = SimpleNamespace(ms=NOW_MS)
    monkeypatch.setattr(judging, "_now_ms", lambda: now.ms)
    task = SimpleNamespace(architecture=None)
    monkeypatch.setattr(judging, "fetch_task", lambda order: task)
    monkeypatch.setattr("offchain.material.model_size_bound", lambda _: len(DATA))
    return now


def order(link: str) -> dict[str, Any]:
    """An order in its challenge window; its model was scored."""
    return {
        "oid": OID,
        "phase": "challenge",
        "client": "0xclient",
        "deadlineMs": NOW_MS + WINDOW_MS,
        "order": {"dataRoot": ROOT},
        "blockHash": "0x" + "33" * 32,
        "testLinks": [],
        "claims": [{"provider": "0xprovider", "mid": MID, "sizeBytes": len(DATA), "links": [link]}],
        "validations": [{"vid": "0x1", "mid": MID, "score": "5", "validator": "0x2", "digest": "0x"}],
        "challenges": [],
        "reports": [],
        "disputes": [],
    }


Looks = Callable[[int], None]


def test_what_came_and_then_goes_dark_is_gone_by_the_usual_rule(
    served: tuple[EmbeddedStore, str], clock: SimpleNamespace, tmp_path: Path
) -> None:
    store, link = served
    judge, detail = Judge(tmp_path / "answers"), order(link)
    sampler = Sampler(judge, random.Random(2).randrange)
    assert judge.can_fetch(detail, MID)
    sampler.look(detail, clock.ms)
    assert judge.absences.has_come((OID, "challenge", MID))
    store.unpin(CID)
    found = {}
    for after_ms in range(2000, WINDOW_MS, 500):
        clock.ms = NOW_MS + after_ms
        sampler.look(detail, clock.ms)
        found[after_ms] = list(judge.gone(detail))
    assert not found[5500], "not at once: it may be a hiccup"
    assert found[9500] == [MID], "but while it can still be reported"


def test_what_is_back_in_time_is_not_gone(
    served: tuple[EmbeddedStore, str], clock: SimpleNamespace, tmp_path: Path
) -> None:
    store, link = served
    judge, detail = Judge(tmp_path / "answers"), order(link)
    sampler = Sampler(judge, random.Random(2).randrange)
    store.unpin(CID)
    for after_ms in range(0, 6000, 1000):
        clock.ms = NOW_MS + after_ms
        sampler.look(detail, clock.ms)
    store.publish(store.put(DATA))
    for after_ms in range(6000, WINDOW_MS, 1000):
        clock.ms = NOW_MS + after_ms
        sampler.look(detail, clock.ms)
    assert not list(judge.gone(detail)) and judge.absences.has_come((OID, "challenge", MID))


@pytest.mark.parametrize(("kind", "config"), [(Verifier, VerifierConfig), (Validator, ValidatorConfig)])
def test_validators_and_verifiers_report_it_once(
    served: tuple[EmbeddedStore, str],
    clock: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    config: Any,
) -> None:
    store, link = served
    watcher = scripted(kind, config, tmp_path)
    monkeypatch.setattr("offchain.contesting.time", SimpleNamespace(time_ns=lambda: clock.ms * 1_000_000))
    detail = order(link)
    watcher.watch(detail)
    assert not watcher.network.sent
    store.unpin(CID)
    for after_ms in range(2000, WINDOW_MS, 500):
        clock.ms = NOW_MS + after_ms
        watcher.watch(detail)
    ((sent, fields),) = watcher.network.sent
    assert sent is IrretrievableReport and "0x" + fields["subject"].hex() == MID
    watcher.network.close = lambda: None
    watcher.close()


@pytest.mark.parametrize(("kind", "config"), [(Verifier, VerifierConfig), (Validator, ValidatorConfig)])
def test_an_order_that_moved_on_since_it_was_listed_is_left_alone(
    tmp_path: Path, kind: Any, config: Any
) -> None:
    watcher = scripted(kind, config, tmp_path)
    watcher.watch(order("http://127.0.0.1:9") | {"phase": "sealed", "deadlineMs": None})
    assert not watcher.network.sent
    watcher.network.close = lambda: None
    watcher.close()


def test_an_order_without_links_is_not_held_against_anybody(clock: SimpleNamespace, tmp_path: Path) -> None:
    judge, detail = Judge(tmp_path / "answers"), order("")
    detail["claims"][0]["links"] = []
    judge.sample(detail, random.Random(3).randrange)
    assert not judge.absences.is_failing((OID, "challenge", MID))


# Uptime --------------------------------------------------------------------------------------------------


def test_samples_are_counted_for_who_serves_and_outlast_a_restart(
    served: tuple[EmbeddedStore, str], clock: SimpleNamespace, tmp_path: Path
) -> None:
    store, link = served
    path = tmp_path / "uptime.json"
    for _ in range(2):  # the second time after a restart
        judge = Judge(tmp_path / "answers", on_sampled=Uptime(path).note)
        judge.sample(order(link), random.Random(1).randrange)
    store.unpin(CID)
    judge.sample(order(link), random.Random(1).randrange)
    judge.sample(order(link), random.Random(1).randrange)
    seen = read_uptime(path)
    assert seen == {"0xprovider": Seen(asked=4, came=2)} and seen["0xprovider"].bps == 5000


def test_a_test_set_that_does_not_come_is_its_clients(
    clock: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise Unavailable("nobody answers")

    monkeypatch.setattr(judging, "probe_test", nobody)
    said: list[tuple[str, bool]] = []
    judge = Judge(tmp_path / "answers", on_sampled=lambda *each: said.append(each))
    detail = order("") | {"claims": [], "validations": [], "testLinks": ["http://127.0.0.1:9/ipfs/nothing"]}
    judge.sample(detail, random.Random(1).randrange)
    assert said == [("0xclient", False)]


def test_a_damaged_or_unwritable_file_costs_the_observations_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "uptime.json"
    path.write_text('{"0x1": {"asked": "many"}}')
    uptime = Uptime(path)
    assert read_uptime(path) == {} and "begun anew" in caplog.text
    uptime.note("0x1", True)
    assert read_uptime(path) == {"0x1": Seen(1, 1)}
    path.with_name(path.name + ".new").mkdir()  # nothing can be written over it
    uptime.note("0x1", True)
    assert "is not kept" in caplog.text and read_uptime(path) == {"0x1": Seen(1, 1)}


def test_the_account_not_asked_for_longest_is_forgotten_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offchain.uptime.MOST_REMEMBERED", 2)
    uptime = Uptime(tmp_path / "uptime.json")
    for account in ("0x1", "0x2", "0x1", "0x3"):
        uptime.note(account, True)
    assert list(read_uptime(tmp_path / "uptime.json")) == ["0x1", "0x3"]
