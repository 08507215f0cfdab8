"""Who signs for an account: a key in this process (`protocol.crypto.Key`), or a signer outside of it.

A `Signer` is asked for two things, a signature over EIP-712 typed data and a transaction on the chain, and is
given the whole of what it signs, so that a device or a person beside it can look before agreeing. An external
signer (`protocol.chain.external_signer`) is an outside source of bytes: what it gives is checked before use.

What is derived from a secret key, the salts of commitments and an aggregator's link key, no external signer
can give; docs/operating.md says which roles that leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from web3 import Web3

Document = Callable[[], dict[str, Any]]
"""Makes the ``eth_signTypedData_v4`` document of what is signed; not asked for by who holds the key."""


class Signer(Protocol):
    """An account that can sign; `address` is its 20 bytes."""

    @property
    def address(self) -> bytes:
        """The account, 20 bytes."""
        ...

    def sign_typed(self, digest: bytes, document: Document) -> bytes:
        """The canonical 65-byte signature over the EIP-712 ``digest`` of ``document``.

        Raises:
            SignerError: an external signer did not give it.
        """
        ...

    def send_transaction(self, node: Web3, transaction: Mapping[str, Any]) -> bytes:
        """Sign a whole ``transaction`` and hand it to the chain through ``node``; returns its hash.

        Raises:
            SignerError: an external signer did not sign it. Whatever web3 raises: the chain did not take it.
        """
        ...
