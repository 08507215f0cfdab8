"""Signatures of one settlement report: pure bookkeeping, no clock, chain or socket.

Guarantees: only signatures of members over exactly the ledger's own report count; what `bundle` returns
satisfies ``Settlement.update``.
"""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.ledger.settlement import typed_report
from aggregator.ledger.state import Committee, PendingReport
from protocol.crypto import Key, recover
from protocol.errors import InvalidSignature
from protocol.transactions import Report
from protocol.typed_data import Domain, digest_of

MAX_EARLY = 4
"""Signatures kept of each member for reports this member's ledger has not made yet; the oldest goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A report with enough signatures: the arguments of ``Settlement.update``."""

    report: Report
    signers: int
    signatures: bytes


class SignatureCollector:
    """Collects signatures on the pending report of this member's own ledger."""

    def __init__(self, domain: Domain, key: Key) -> None:
        self._domain = domain
        self._key = key
        self._report: Report | None = None
        self._digest = b""
        self._committee = Committee()
        self._signatures: dict[bytes, bytes] = {}
        self._early: dict[bytes, dict[bytes, bytes]] = {}
        """By member and digest."""

    @property
    def digest(self) -> bytes:
        """EIP-712 digest of the report being signed; empty when there is none."""
        return self._digest

    def start(self, pending: PendingReport, committee: Committee) -> bytes:
        """Begin with a report; returns this member's own signature on it."""
        report = typed_report(pending)
        digest = digest_of(self._domain, report)
        if digest != self._digest:
            self._report, self._digest, self._committee = report, digest, committee
            self._signatures = {self._key.address: self._key.sign(digest)}
            for member, signatures in self._early.items():
                if digest in signatures:
                    self._signatures[member] = signatures[digest]
            self._early = {}
        return self._signatures[self._key.address]

    def stop(self) -> None:
        """The report is settled."""
        self._report, self._digest, self._signatures = None, b"", {}

    def add(self, digest: bytes, signature: bytes, members: tuple[bytes, ...]) -> None:
        """Take in another member's signature.

        Raises:
            InvalidSignature: not a signature by a member.
        """
        signer = recover(digest, signature)
        if signer not in members:
            raise InvalidSignature(f"0x{signer.hex()} is no member of the committee")
        if digest == self._digest:
            self._signatures[signer] = signature
        else:
            early = self._early.setdefault(signer, {})
            early[digest] = signature
            if len(early) > MAX_EARLY:
                del early[next(iter(early))]

    def bundle(self) -> Bundle | None:
        """The settlement, once enough members have signed; signatures in member order."""
        if self._report is None or len(self._signatures) < self._committee.threshold:
            return None
        signers, signatures, count = 0, b"", 0
        for index, member in enumerate(self._committee.members):
            if member in self._signatures and count < self._committee.threshold:
                signers |= 1 << index
                signatures += self._signatures[member]
                count += 1
        if count < self._committee.threshold:
            return None
        return Bundle(report=self._report, signers=signers, signatures=signatures)
