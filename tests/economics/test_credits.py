"""Credits that aggregators tell of are read whole or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from offchain.answers import fetch_credits
from offchain.network import NetworkError

WHO = "0x" + "11" * 20
GOOD = {"epoch": 3, "amountWei": "70", "proof": ["0x" + "aa" * 32, "0x" + "bb" * 32]}


class Told:
    """A network whose credits are these."""

    def __init__(self, *credits_: Any) -> None:
        self.credits = credits_

    def pages(self, path: str, name: str) -> Iterator[Any]:
        assert (path, name) == (f"/v1/accounts/{WHO}/credits", "credits")
        yield from self.credits


def test_credits_are_read_with_their_proofs() -> None:
    (credit,) = fetch_credits(Told(GOOD), WHO)  # type: ignore[arg-type]
    assert (credit.epoch, credit.amount_wei) == (3, 70)
    assert credit.proof == (b"\xaa" * 32, b"\xbb" * 32)


@pytest.mark.parametrize(
    "credit",
    [
        None,
        [],
        {},
        GOOD | {"epoch": "x"},
        GOOD | {"amountWei": None},
        GOOD | {"proof": 5},
        GOOD | {"proof": ["zz"]},
    ],
)
def test_a_credit_that_cannot_be_read_is_refused(credit: Any) -> None:
    with pytest.raises(NetworkError, match="credits"):
        fetch_credits(Told(GOOD, credit), WHO)  # type: ignore[arg-type]
