"""An aggregator that answers, but with nothing of use, keeps no actor from its work."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.actor import Actor
from offchain.config import ClientConfig
from protocol.keyfile import write_private
from tests.answers import Json, account, claim, open_order
from tests.chain import chainless_network
from tests.scripts.serving import serving

MOST_ROUNDS = 20


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Leave this process its own way to end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Looking(Actor):
    """Works once it has been told of an order in training."""

    rounds = 0
    told: list[Json] | None = None

    def act(self) -> None:
        self.rounds += 1
        if self.rounds >= MOST_ROUNDS:
            self.stopping.set()
        self.told = self.orders_in("training")
        self.stopping.set()


ROW = open_order(claimCount=0)


def saying(listed: Json, detail: Any) -> Callable[[str], tuple[int, bytes]]:
    """An aggregator's answers about all orders, and about one."""
    return lambda path: (200, json.dumps(detail if "0x" in path else listed).encode())


HONEST = saying({"orders": [ROW]}, open_order())
ESCAPING = claim(account("mallory"), mid="0x/../../../escaped", sizeBytes=5)


@pytest.mark.parametrize(
    "useless",
    [
        lambda _: (200, b"nothing"),
        saying({}, {}),
        saying({"orders": [ROW | {"oid": "0x../../escaped"}]}, open_order()),
        saying({"orders": [ROW]}, []),
        saying({"orders": [ROW]}, open_order(oid="0x" + "77" * 32)),
        saying({"orders": [ROW]}, open_order(deadlineMs=None)),
        saying({"orders": [ROW]}, open_order(deadlineMs="soon")),
        saying({"orders": [ROW]}, open_order(claims=[ESCAPING])),
        saying({"orders": [ROW]}, open_order(validations=None)),
        saying({"orders": [ROW]}, open_order(testLinks=[5])),
        saying({"orders": [ROW]}, open_order(parameters={"claim_stake_wei": "much"})),
    ],
)
def test_the_next_aggregator_is_asked_where_one_answers_uselessly(tmp_path: Path, useless: Any) -> None:
    write_private(tmp_path / "key", "77" * 32)
    with serving(useless) as liar, serving(HONEST) as other:
        (tmp_path / "network.json").write_text(chainless_network(liar, other).model_dump_json())
        config = ClientConfig(
            key_file=tmp_path / "key", data_dir=tmp_path, network=tmp_path / "network.json", poll_s=0.01
        )
        actor = Looking(config)
        actor.run()
    assert actor.told == [open_order()] and actor.rounds < MOST_ROUNDS
