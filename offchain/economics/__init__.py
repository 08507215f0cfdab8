"""What orders paid, what one may pay, and how nodes have behaved: estimates out of settled orders.

Everything here is advice: it rests on what one aggregator says of orders that are settled, and on the rule
that the future is like them. Nothing of it decides about money.
"""

from offchain.economics.committee_bound import CommitteeBound, bound_of
from offchain.economics.history import Offer, Past, fetch_history, fetch_settlements, offer_of
from offchain.economics.margin import Margin, margin_of
from offchain.economics.quotes import (
    OrderEstimate,
    ProviderQuote,
    ValidatorQuote,
    estimate_order,
    quote_provider,
    quote_validator,
)
from offchain.economics.record import Record, record_of

__all__ = [
    "CommitteeBound",
    "Margin",
    "Offer",
    "OrderEstimate",
    "Past",
    "ProviderQuote",
    "Record",
    "ValidatorQuote",
    "bound_of",
    "estimate_order",
    "fetch_history",
    "fetch_settlements",
    "margin_of",
    "offer_of",
    "quote_provider",
    "quote_validator",
    "record_of",
]
