"""Signers on loopback: Anvil's own account behind the dialects that real signers speak, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from eth_account import Account

from protocol.crypto import Key
from tests.scripts.serving import Answer, serving

DEV_KEY: Final = Key(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))
"""The key of Anvil's first account, which it holds unlocked; only the stand-ins of liars use it here."""

Json = dict[str, Any]


class Refused(Exception):
    """What a signer answers as its error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


UNKNOWN: Final = Refused(-32601, "the method does not exist")


class Standing:
    """A signer that answers as ``methods`` say; everything else it does not know."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.methods = methods
        self.asked: list[tuple[str, list[Any]]] = []
        self.url = ""

    def __call__(self, body: bytes) -> Answer:
        question = json.loads(body)
        method, params = question["method"], question["params"]
        self.asked.append((method, params))
        answer: Json = {"jsonrpc": "2.0", "id": question["id"]}
        try:
            if method not in self.methods:
                raise UNKNOWN
            answer["result"] = self.methods[method](*params)
        except Refused as reason:
            answer["error"] = {"code": reason.code, "message": str(reason)}
        return 200, json.dumps(answer).encode()

    @contextmanager
    def up(self) -> Iterator[Standing]:
        """Listening on loopback."""
        with serving(lambda path: (404, b""), self) as self.url:
            yield self


def forwarding(rpc_url: str, method: str) -> Callable[..., Any]:
    """What asks the real node the same under its own name."""

    def ask(*params: Any) -> Any:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = httpx.post(rpc_url, json=question, timeout=30).json()
        if "error" in answer:
            raise Refused(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    return ask


def dialects(rpc_url: str) -> dict[str, Standing]:
    """Anvil's account as other signers would offer it."""
    sign, send = forwarding(rpc_url, "eth_signTransaction"), forwarding(rpc_url, "eth_sendTransaction")
    typed, accounts = forwarding(rpc_url, "eth_signTypedData_v4"), forwarding(rpc_url, "eth_accounts")

    def object_only(account: str, document: Json) -> Any:
        assert isinstance(document, dict), "Clef takes no text"
        return typed(account, document)

    def text_only(account: str, document: str) -> Any:
        assert isinstance(document, str), "Web3Signer takes no object"
        return typed(account, document)

    return {
        "clef": Standing(
            account_list=accounts,
            account_signTransaction=lambda transaction: {"raw": sign(transaction), "tx": {}},
            account_signTypedData=object_only,
        ),
        "web3signer": Standing(eth_accounts=accounts, eth_signTransaction=sign, eth_signTypedData=text_only),
        "wallet": Standing(eth_accounts=accounts, eth_sendTransaction=send, eth_signTypedData_v4=text_only),
    }


def signed_raw(fields: Json, key: Key = DEV_KEY, **changes: Any) -> str:
    """The raw transaction of ``fields`` with some of them changed, signed by ``key``."""
    transaction = {name: value for name, value in fields.items() if name != "from"} | changes
    transaction = {name: value for name, value in transaction.items() if value is not None}
    return "0x" + Account.from_key(key.secret).sign_transaction(transaction).raw_transaction.hex()
