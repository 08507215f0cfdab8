"""Whether the tax pays for the chain's gas: what settlements cost, and what they brought the aggregators.

Amounts are wei of the token; gas is paid in the chain's coin, whose price in tokens is an argument, since no
contract knows it. Aggregators' machines are not in it.

Source: issue 4, "Aggregators' tax covers gas"; PoT 4.2 and table 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offchain.answers import SettlementRow
from offchain.economics.history import Past
from protocol.parameters import BPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Gas and tax of the settlements looked at."""

    settlements: int
    orders: int
    gas: int
    """Of all of them together."""
    gas_wei: int
    """What that costs, in wei of the token."""
    tax_wei: int

    @property
    def gas_per_order(self) -> int:
        """Gas of the settlements, over the orders in them."""
        return self.gas // max(1, self.orders)

    @property
    def margin_wei(self) -> int:
        """What is left of the tax; negative if gas costs more."""
        return self.tax_wei - self.gas_wei

    @property
    def margin_bps(self) -> int | None:
        """The same in basis points of the tax; None without any."""
        return self.margin_wei * BPS // self.tax_wei if self.tax_wei else None


def margin_of(
    settlements: Sequence[SettlementRow], history: Sequence[Past], gas_price_wei: int, coin_price_wei: int
) -> Margin:
    """The margin over those settlements all of whose orders are in ``history``.

    Args:
        gas_price_wei: in wei of the chain's coin.
        coin_price_wei: what a coin of 10^18 such wei costs, in wei of the token.
    """
    tax = {past.oid: past.tax_wei for past in history}
    seen = [each for each in settlements if all(oid in tax for oid in each.orders)]
    gas = sum(each.gas_used for each in seen)
    oids = [oid for each in seen for oid in each.orders]
    return Margin(
        settlements=len(seen),
        orders=len(oids),
        gas=gas,
        gas_wei=gas * gas_price_wei * coin_price_wei // 10**18,
        tax_wei=sum(tax[oid] for oid in oids),
    )
