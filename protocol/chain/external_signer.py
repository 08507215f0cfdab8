"""An account whose key is elsewhere: a hardware wallet or a signing service, asked by JSON-RPC over HTTP.

Signers speak dialects; of each the first method that the signer knows is used, and remembered:

    ============  ==========================================================================================
    accounts      ``eth_accounts`` (Web3Signer, Frame, Anvil), ``account_list`` (Clef)
    transactions  ``eth_signTransaction`` (Web3Signer, geth over Clef, Anvil), ``account_signTransaction``
                  (Clef), ``eth_sendTransaction`` (Frame and other wallets: the signer sends it itself)
    typed data    ``eth_signTypedData_v4`` (Frame, Anvil), ``eth_signTypedData`` (Web3Signer),
                  ``account_signTypedData`` (Clef)
    ============  ==========================================================================================

``eth_sign`` and ``personal_sign`` are never asked for: nothing here signs what its owner cannot read.

Guarantees: an answer is bounded in time and bytes; a signature is used only if it is the account's and over
exactly what was asked; a transaction that a signer gave back is the one asked for, in every field. One that
the signer sent by itself is looked up on *our* node and compared in sender, recipient, value and data (fees
and nonce are the wallet's to choose); it cannot be called back: that tells of a bad signer, and stops none.
No request is repeated after an answer that does not come: the signer may still have signed.

Source: EIP-1474 (JSON-RPC), EIP-712, EIP-1193 (codes of refusals), Clef's external API.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import TransactionNotFound

from protocol.chain.envelope import call_fields, check_signed
from protocol.crypto import SIGNATURE_BYTES, keccak256, recover
from protocol.errors import (
    InvalidEncoding,
    InvalidSignature,
    SignedOtherwise,
    SignerRefused,
    SignerUnavailable,
)
from protocol.signer import Document
from protocol.typed_data import parse_hex

log = logging.getLogger(__name__)

ACCOUNTS: Final = ("eth_accounts", "account_list")
TYPED: Final = ("eth_signTypedData_v4", "eth_signTypedData", "account_signTypedData")
SENDS: Final = "eth_sendTransaction"
TRANSACTIONS: Final = ("eth_signTransaction", "account_signTransaction", SENDS)
AS_OBJECT: Final = frozenset({"account_signTypedData"})
"""Methods that take typed data as an object, the others as its JSON text."""
UNKNOWN_METHOD: Final = frozenset({-32601, -32004, 4200})
"""JSON-RPC, EIP-1474 and EIP-1193: no such method, method not supported, unsupported method."""
TIMEOUT_S: Final = 120.0
"""Somebody may have to find a device and press its button."""
CONNECT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 1 << 20
SEEN_S: Final = 30.0
"""How long a transaction that the signer sent may take until our node knows of it."""
SEEN_PAUSE_S: Final = 0.25
SHOWN_CHARACTERS: Final = 200


class _NoSuchMethod(Exception):
    pass


class ExternalSigner:
    """One account of the signer at ``url``; a `protocol.signer.Signer`."""

    def __init__(self, url: str, account: bytes, timeout_s: float = TIMEOUT_S) -> None:
        """``timeout_s`` is how long one answer may take, a person's deciding included."""
        self.address = account
        self._url = httpx.URL(url)
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._known: dict[tuple[str, ...], str] = {}
        # No proxy and no redirection: what is to be signed goes where the configuration says.
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)), trust_env=False
        )

    def __repr__(self) -> str:
        return f"ExternalSigner({self._shown}, 0x{self.address.hex()})"

    @property
    def _shown(self) -> str:
        """The URL without the password that may stand in it."""
        return str(self._url.copy_with(userinfo=b"", query=None))

    def check(self) -> None:
        """Raise `SignerError` unless the signer answers and has the account; signs nothing."""
        _, answer = self._first_of(ACCOUNTS, lambda _: [])
        has = {str(each).lower() for each in answer} if isinstance(answer, list) else set()
        if "0x" + self.address.hex() not in has:
            raise SignerRefused(
                f"the signer at {self._shown} does not have the account 0x{self.address.hex()}: "
                "unlock or add it there, or correct `account`"
            )

    def sign_typed(self, digest: bytes, document: Document) -> bytes:
        """As `protocol.signer.Signer` says."""
        whole, account = document(), to_checksum_address(self.address)
        text = json.dumps(whole)
        _, answer = self._first_of(TYPED, lambda method: [account, whole if method in AS_OBJECT else text])
        try:
            signature = parse_hex(answer)
            if len(signature) == SIGNATURE_BYTES and signature[-1] < 2:  # some devices count from 0
                signature = signature[:-1] + bytes([signature[-1] + 27])
            found = recover(digest, signature)
        except (ValueError, InvalidSignature) as reason:
            raise SignedOtherwise(f"the signer at {self._shown} gave no signature: {reason}") from reason
        if found != self.address:
            # A signature over another text recovers to some random address: the two cannot be told apart.
            raise SignedOtherwise(
                f"the signer at {self._shown} signed something else than it was asked to, or with another "
                f"key than that of 0x{self.address.hex()}; nothing was sent"
            )
        return signature

    def send_transaction(self, node: Web3, transaction: Mapping[str, Any]) -> bytes:
        """As `protocol.signer.Signer` says."""
        fields = call_fields(transaction)
        method, answer = self._first_of(TRANSACTIONS, lambda _: [fields])
        if method == SENDS:
            return self._sent(node, transaction, answer)
        if isinstance(answer, dict):  # geth and Clef: {"raw": …, "tx": …}
            answer = answer.get("raw")
        try:
            raw = parse_hex(answer)
            check_signed(raw, transaction, self.address)
        except (ValueError, InvalidEncoding, InvalidSignature) as reason:
            raise SignedOtherwise(
                f"the signer at {self._shown} gave something else than the transaction that it was to sign: "
                f"{reason}; nothing was sent"
            ) from reason
        node.eth.send_raw_transaction(raw)
        return keccak256(raw)

    def _sent(self, node: Web3, transaction: Mapping[str, Any], answer: object) -> bytes:
        """The hash of what the signer says it sent, once it is seen to be what was asked for."""
        try:
            sent = parse_hex(answer)
        except ValueError:
            sent = b""
        if len(sent) != 32:
            raise SignedOtherwise(f"the signer at {self._shown} gave no transaction's hash")
        deadline_s = time.monotonic() + SEEN_S
        while True:
            try:
                found = node.eth.get_transaction(sent)  # type: ignore[arg-type]
                break
            except TransactionNotFound:
                if time.monotonic() > deadline_s:
                    raise SignerUnavailable(
                        f"the signer at {self._shown} says that it sent transaction 0x{sent.hex()}, and our "
                        f"chain node has not seen it in {SEEN_S:.0f} s: is the signer on the same chain?"
                    ) from None
                time.sleep(SEEN_PAUSE_S)
        asked = (transaction["from"], transaction["to"], transaction["value"], _data(transaction["data"]))
        if (found["from"], found.get("to"), found["value"], _data(found["input"])) != asked:
            raise SignedOtherwise(
                f"the signer at {self._shown} SENT something else than it was asked to: look at transaction "
                f"0x{sent.hex()}, and do not use this signer any more"
            )
        return sent

    # Asking ----------------------------------------------------------------------------------------

    def _first_of(self, methods: tuple[str, ...], params: Any) -> tuple[str, Any]:
        """The method that the signer knew, and what it answered."""
        known = self._known.get(methods)
        for method in (known,) if known is not None else methods:
            try:
                answer = self._ask(method, params(method))
            except _NoSuchMethod:
                continue
            self._known[methods] = method
            return method, answer
        raise SignerUnavailable(
            f"{self._shown} knows none of {', '.join(methods)}: it is no signer, or does not allow them"
        )

    def _ask(self, method: str, params: list[Any]) -> Any:
        number = next(self._ids)
        question = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        log.info("asking the signer at %s: %s", self._shown, method)
        answer = self._exchange(question)
        if not isinstance(answer, dict) or answer.get("id") != number:
            raise SignerUnavailable(f"what answers at {self._shown} is no JSON-RPC signer")
        error = answer.get("error")
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            if code in UNKNOWN_METHOD:
                raise _NoSuchMethod
            said = error.get("message") if isinstance(error, dict) else error
            raise SignerRefused(f"the signer at {self._shown} refused {method}: {_printable(said)}")
        if "result" not in answer:
            raise SignerUnavailable(f"what answers at {self._shown} is no JSON-RPC signer")
        return answer["result"]

    def _exchange(self, question: dict[str, Any]) -> Any:
        deadline_s = time.monotonic() + self._timeout_s
        data = bytearray()
        try:
            with self._http.stream("POST", self._url, json=question) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    # The timeout bounds each wait only: one that drips would hold us for ever.
                    if time.monotonic() > deadline_s:
                        raise httpx.ReadTimeout("dripping")
                    if len(data) > MAX_ANSWER_BYTES:
                        raise SignerUnavailable(
                            f"the signer at {self._shown} answers with more than {MAX_ANSWER_BYTES} bytes"
                        )
        except (httpx.ReadTimeout, httpx.WriteTimeout) as reason:
            method = question["method"]
            raise SignerUnavailable(
                f"the signer at {self._shown} did not answer {method} in {self._timeout_s:g} s; "
                "it may still sign: look there before you try again (signer_timeout_s is how long to wait)"
            ) from reason
        except httpx.HTTPError as reason:
            raise SignerUnavailable(
                f"no signer answers at {self._shown} ({_printable(reason or type(reason).__name__)}); "
                "start it, or correct signer_url"
            ) from reason
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as reason:
            raise SignerUnavailable(
                f"what answers at {self._shown} (HTTP {response.status_code}) is no JSON-RPC signer"
            ) from reason


def _data(value: Any) -> bytes:
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)


def _printable(text: object) -> str:
    """What a stranger says, on one line and short."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)[:SHOWN_CHARACTERS])
