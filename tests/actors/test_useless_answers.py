"""An aggregator that answers, but with nothing of use, keeps no actor from its work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offchain.actor import Actor
from offchain.answers import fetch_detail
from offchain.config import ClientConfig
from offchain.network import Network
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS
from protocol.roles import Role
from tests.answers import OID, Json, account, claim, open_order, stake
from tests.chain import chainless_network
from tests.scripts.serving import Answer, serving

MOST_ROUNDS = 20


class Looking(Actor):
    """Works once it has been told of an order in training, for which it would need a stake."""

    role = Role.PROVIDER
    rounds = 0
    told: list[Json] | None = None

    def act(self) -> None:
        self.rounds += 1
        if self.rounds >= MOST_ROUNDS:
            self.stopping.set()
        self.told = self.orders_in("training")
        if self.told:
            self.stopping.set()


ROW = open_order(claimCount=0)
OTHER = "0x" + "77" * 32
PARAMETERS = {name: str(value) for name, value in DEFAULTS.values}
Says = Callable[[str], Answer]


def saying(listed: Json, detail: Any, parameters: Any = PARAMETERS) -> Says:
    """An aggregator's answers about all orders, about one, and about the rest."""

    def answer(path: str) -> Answer:
        said: Any = {"/v1/parameters": parameters, "/v1/status": {}}.get(path)
        if path.startswith("/v1/accounts/"):
            said = {"stakes": [stake("provider", 10**30)]}
        elif said is None:
            said = detail if "0x" in path else listed
        return 200, json.dumps(said).encode()

    return answer


def refusing(status: int) -> Says:
    """An aggregator that refuses to say anything."""
    return lambda _: (status, json.dumps({"error": {"code": "Refused", "reason": "no"}}).encode())


def looking(folder: Path, *urls: str) -> Looking:
    """An actor that looked at these aggregators until it was told something, or gave up."""
    write_private(folder / "key", "77" * 32)
    (folder / "network.json").write_text(chainless_network(*urls).model_dump_json())
    config = ClientConfig(
        key_file=folder / "key", data_dir=folder, network=folder / "network.json", poll_s=0.01
    )
    actor = Looking(config)
    actor.run()
    return actor


HONEST = saying({"orders": [ROW]}, open_order())
ESCAPING = claim(account("mallory"), mid="0x/../../../escaped", sizeBytes=5)


@pytest.mark.parametrize(
    "useless",
    [
        lambda _: (200, b"nothing"),
        refusing(400),
        refusing(404),
        saying({"orders": [ROW]}, open_order(), {"min_provider_stake_wei": "much"}),
        saying({"orders": [ROW]}, open_order(), {}),
        saying({}, {}),
        saying({"orders": [ROW | {"oid": "0x../../escaped"}]}, open_order()),
        saying({"orders": [ROW]}, []),
        saying({"orders": [ROW]}, open_order(oid=OTHER)),
        saying({"orders": [ROW]}, open_order(deadlineMs=None)),
        saying({"orders": [ROW]}, open_order(deadlineMs="soon")),
        saying({"orders": [ROW]}, open_order(claims=[ESCAPING])),
        saying({"orders": [ROW]}, open_order(validations=None)),
        saying({"orders": [ROW]}, open_order(testLinks=[5])),
        saying({"orders": [ROW]}, open_order(parameters={"claim_stake_wei": "much"})),
    ],
)
def test_the_next_aggregator_is_asked_where_one_answers_uselessly(tmp_path: Path, useless: Any) -> None:
    with serving(useless) as liar, serving(HONEST) as other:
        actor = looking(tmp_path, liar, other)
    assert actor.told == [open_order()] and actor.rounds < MOST_ROUNDS


def test_one_aggregator_that_hides_orders_keeps_nobody_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one that stands still, and answers with what was."""
    monkeypatch.setattr("offchain.actor.TURN_S", 0.0)  # a turn each round
    with serving(saying({"orders": []}, open_order())) as hiding, serving(HONEST) as other:
        actor = looking(tmp_path, hiding, hiding, other)
    assert actor.told == [open_order()] and actor.rounds <= 3


def test_an_order_that_one_aggregator_lists_and_the_next_has_yet_to_hear_of_is_left_for_later(
    tmp_path: Path,
) -> None:
    def behind(path: str) -> Answer:
        listed = {"orders": [ROW | {"oid": OTHER}, ROW]}
        return refusing(404)(path) if OTHER in path else saying(listed, open_order())(path)

    with serving(behind) as url:
        actor = looking(tmp_path, url)
    assert actor.told == [open_order()] and actor.rounds == 1


def test_an_order_that_has_gone_on_since_it_was_listed_is_left_out(tmp_path: Path) -> None:
    """Its deadline would be taken for the end of the training."""

    def going_on(path: str) -> Answer:
        gone_on = open_order(oid=OTHER, phase="reveal")
        listed = {"orders": [ROW | {"oid": OTHER}, ROW]}
        return saying(listed, gone_on if OTHER in path else open_order())(path)

    with serving(going_on) as url:
        actor = looking(tmp_path, url)
    assert actor.told == [open_order()] and actor.rounds == 1


def test_an_order_of_another_kind_has_all_sections_and_nothing_in_them(tmp_path: Path) -> None:
    sections = (
        "phases",
        "testLinks",
        "claims",
        "validations",
        "challenges",
        "reports",
        "disputes",
        "appeals",
    )
    bare = {name: value for name, value in open_order(kind="other").items() if name not in sections}
    with serving(saying({}, bare)) as url:
        network = Network(chainless_network(url))
        detail = fetch_detail(network, OID)
        network.close()
    assert {name: detail[name] for name in bare} == bare
    assert not any(detail[name] for name in sections)
