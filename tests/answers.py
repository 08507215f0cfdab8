"""What an aggregator answers about one order, as plain JSON; tests change what they are about."""

from __future__ import annotations

from typing import Any

from protocol.parameters import DEFAULTS

Json = dict[str, Any]

OID, ROOT, TASK = ("0x" + digits * 32 for digits in ("22", "44", "55"))
CLIENT = "0x" + "c1" * 20


def account(name: str) -> str:
    """A made-up address that shows whose it is."""
    return "0x" + name.encode().ljust(20, b"\0").hex()


def stake(role: str, bonded_wei: int) -> Json:
    """A node's stake in one role."""
    return {"role": role, "bondedWei": str(bonded_wei), "unbondingWei": "0", "lockedWei": "0"}


def put_fields(**changes: Any) -> Json:
    """What a client put on the chain, as far as anybody asks."""
    fields = {"baseline": "0", "trainWindow": "100", "taskHash": TASK, "dataRoot": ROOT}
    return fields | {"taskLink": "http://127.0.0.1:1/ipfs/task"} | changes


def open_order(**changes: Any) -> Json:
    """A running order without claims."""
    detail = {
        "oid": OID,
        "kind": "open",
        "client": CLIENT,
        "phase": "training",
        "deadlineMs": 5,
        "claimCount": 0,
        "rewardWei": "1000",
        "rewardRateWei": "10",
        "winner": None,
        "score": None,
        "result": None,
        "order": put_fields(),
        "blockHash": "0x" + "33" * 32,
        "mid": None,
        "parameters": {name: str(value) for name, value in DEFAULTS.values},
        "receipts": [],
        "settlement": None,
        "phases": [{"phase": "training", "atMs": 1}],
        "testLinks": None,
        "claims": [],
        "validations": [],
        "challenges": [],
        "reports": [],
        "disputes": [],
        "appeals": [],
    }
    return detail | changes


def settlement(oid: str = OID, **changes: Any) -> Json:
    """What the chain says of an order that is paid."""
    told = {"epoch": 4, "tx": "0x" + "99" * 32, "gasUsed": 7, "atMs": 9, "orders": [oid], "credits": []}
    return told | changes


def settled_order(**changes: Any) -> Json:
    """An order that was won and paid."""
    over = {"phase": "settled", "deadlineMs": None, "result": "won", "settlement": settlement()}
    return open_order(**over | changes)


def seat(juror: str) -> Json:
    """A juror who has said nothing yet."""
    return {"juror": juror, "stakeWei": "1", "committed": False, "score": None, "digest": None}


def claim(provider: str, **changes: Any) -> Json:
    """A claim that is not revealed."""
    unrevealed = {"mid": None, "sizeBytes": None, "links": [], "score": None}
    return {"provider": provider, "commitment": "0x" + "66" * 32} | unrevealed | changes
