"""What orders needed goes when they are settled and paid for, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offchain import actor
from offchain.client import ClientDaemon
from offchain.client.daemon import files_of
from offchain.client.orders import OrderRecord, OrderRecords
from offchain.config import ClientConfig, ProviderConfig
from offchain.network import NetworkError, NotFound
from offchain.provider import Provider
from offchain.retention import DamagedRecord, Retention
from offchain.storage.unixfs import build
from protocol.keyfile import write_private
from protocol.task import make_task
from tests.answers import open_order, settled_order
from tests.chain import chainless_network
from tests.protocol.test_task import fields

A, B = "0x" + "aa" * 32, "0x" + "bb" * 32
ONE, TWO, BOTH = (build(name)[0] for name in (b"one", b"two", b"both"))
KEEP_S = 100
NOW_MS = 1_700_000_000_000


@pytest.fixture
def retention(tmp_path: Path) -> Retention:
    """Two orders that share a file."""
    retention = Retention(tmp_path, KEEP_S)
    retention.need(A, [ONE, BOTH])
    retention.need(B, [TWO, BOTH])
    return retention


def test_nothing_is_due_before_it_was_settled_and_kept(retention: Retention) -> None:
    assert retention.due(NOW_MS + 10**12) == {}
    retention.settled(A, NOW_MS)
    assert retention.due(NOW_MS + KEEP_S * 1000 - 1) == {}
    assert retention.due(NOW_MS + KEEP_S * 1000) == {A: frozenset([ONE])}
    assert retention.unsettled() == [B]


def test_what_two_orders_need_goes_with_the_second(retention: Retention) -> None:
    retention.settled(A, NOW_MS)
    retention.settled(B, NOW_MS + 5000)
    assert retention.due(NOW_MS + KEEP_S * 1000) == {A: frozenset([ONE])}
    retention.forget(A)
    assert retention.due(NOW_MS + KEEP_S * 1000 + 5000) == {B: frozenset([TWO, BOTH])}


def test_hearing_it_again_does_not_prolong_it_and_a_restart_forgets_nothing(
    retention: Retention, tmp_path: Path
) -> None:
    retention.settled(A, NOW_MS)
    retention.settled(A, NOW_MS + 50_000)
    retention.need(A)
    again = Retention(tmp_path, KEEP_S)
    assert again.due(NOW_MS + KEEP_S * 1000) == {A: frozenset([ONE])}
    assert again.knows(B)
    again.forget(A)
    assert not Retention(tmp_path, KEEP_S).knows(A)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cids": ["x"], "settled_ms": null}', '{"cids": 5}'])
def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{A}.json").write_text(text)
    with pytest.raises(DamagedRecord, match=A):
        Retention(tmp_path, KEEP_S)


class Phases:
    """Stands where the network would: what f + 1 aggregators say of orders."""

    def __init__(self) -> None:
        self.phase: dict[str, str] = {}
        self.asked: list[str] = []

    def agreed(self, path: str, select: Any) -> Any:
        if self.phase[path.removeprefix("/v1/orders/")] == "one says settled":
            raise NetworkError("too few agree")
        return self.get(path)

    def get(self, path: str, **_: Any) -> Any:
        if path == "/v1/orders":
            return {"orders": []}
        oid = path.removeprefix("/v1/orders/")
        self.asked.append(oid)
        if oid not in self.phase:
            raise NotFound("not confirmed yet")
        said = self.phase[oid].removeprefix("one says ")
        return settled_order(oid=oid) if said == "settled" else open_order(oid=oid, phase=said)

    def close(self) -> None:
        pass


def started(kind: Any, config: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, keep_s: int = 0) -> Any:
    """An actor whose network is a script, and that looks at every call."""
    monkeypatch.setattr(actor, "LOOK_AT_SETTLED_S", -1.0)
    (folder / "network.json").write_text(chainless_network("http://127.0.0.1:1").model_dump_json())
    write_private(folder / "key", "77" * 32)
    found = kind(
        config(
            key_file=folder / "key", data_dir=folder / "data", network=folder / "network.json", keep_s=keep_s
        )
    )
    found.network.close()
    found.network = Phases()
    return found


def test_a_provider_drops_its_model_and_its_checkpoints_after_the_settlement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = started(Provider, ProviderConfig, tmp_path, monkeypatch)
    cid = provider.store.put(b"model")
    provider.store.publish(cid)
    provider.retention.need(A, [cid])
    claims = tmp_path / "data" / "orders" / A[2:] / "claims"
    claims.mkdir(parents=True)
    for phase in (None, "training", "sealed", "one says settled"):
        if phase:
            provider.network.phase[A] = phase
        provider.drop_settled()
        assert provider.store.public_block(cid) == b"model" and claims.exists()
    provider.network.phase[A] = "settled"
    provider.drop_settled()
    assert not provider.store.pins() and not claims.parent.exists()
    assert not list((tmp_path / "data" / "store" / "private").iterdir())
    provider.drop_settled()
    provider.close()


def test_what_is_paid_for_longer_stays_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = started(Provider, ProviderConfig, tmp_path, monkeypatch, keep_s=3600)
    cid = provider.store.put(b"model")
    provider.retention.need(A, [cid])
    provider.network.phase[A] = "settled"
    provider.drop_settled()
    assert provider.retention.unsettled() == [] and provider.store.has(cid)
    provider.close()


def test_orders_that_never_settle_do_not_keep_others_from_being_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = started(Provider, ProviderConfig, tmp_path, monkeypatch)
    orders = ["0x" + number.to_bytes(32, "big").hex() for number in range(2 * actor.MOST_ASKED + 3)]
    for oid in orders:
        provider.retention.need(oid)
    for _ in range(3):
        provider.drop_settled()
    assert set(provider.network.asked) == set(orders)
    assert len(provider.network.asked) == 3 * actor.MOST_ASKED
    provider.close()


def test_a_client_drops_the_data_of_an_order_and_forgets_that_it_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = started(ClientDaemon, ClientConfig, tmp_path, monkeypatch)
    written = fields()
    for index, fragment in enumerate(written["data"]["fragments"]):
        fragment["cid"] = str(client.store.put(b"fragment %d" % index))
    document = make_task(written)
    records = OrderRecords(tmp_path / "data")
    records.prepare(document)
    records.write(bytes.fromhex(A[2:]), OrderRecord.of(document))
    kept = client.store.put(document.canonical())
    other = client.store.put(b"another order's")
    client.act()
    assert len(files_of(document)) == 13 and len(client.store.pins()) == 14
    assert client.store.has(kept) and records.prepared(document.digest()) is not None
    client.network.phase[A] = "settled"
    client.act()
    assert [pin.cid for pin in client.store.pins()] == [other]
    assert records.prepared(document.digest()) is None
    client.close()
