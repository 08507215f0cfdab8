"""Which aggregator is asked: another one for each account, and the next where one is silent."""

from __future__ import annotations

import contextlib
import itertools

from offchain.network import Network
from protocol.crypto import Key
from tests.chain import chainless_network
from tests.scripts.serving import Answer, serving

KEYS = [Key(bytes([number]) * 32) for number in range(1, 13)]


def test_accounts_share_out_the_aggregators_and_go_on_to_the_next_where_one_is_down() -> None:
    asked: list[int] = []

    def answer(number: int) -> Answer:
        asked.append(number)
        return (503 if number == 1 else 200), b"{}"

    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(serving(lambda _, number=number: answer(number))) for number in range(3)]
        for key in KEYS:
            network = Network(chainless_network(*urls), key)
            network.get("/v1/status")
            network.get("/v1/status")
            network.close()
    assert {asked.count(number) > 1 for number in range(3)} == {True}, "all of them are asked first by some"
    for first, second in itertools.pairwise(asked):
        assert first != 1 or second == 2, "the next one is asked where one is down, and from then on"
