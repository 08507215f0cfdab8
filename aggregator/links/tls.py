"""TLS between members, in the manner of libp2p: certificates that sign themselves, keys that were registered.

A link key signs its own certificate; both ends show one. Nothing in a certificate is believed but its Ed25519
key, which the handshake proves; whether that key may be here is for the caller to say (`Channel.peer_key`).
TLS 1.3 only. Data flows one way, from whoever dialled; the other side says one thing, its `welcome`, once it
has found the key among the registered ones: which protocol versions it knows (two bytes). A dialler that
knows none of them ends the connection; one that was not welcomed knows that it was not heard.

A `Channel` takes bytes and gives bytes; sockets are its owner's. Bounds: `MAX_HANDSHAKE_BYTES` taken in
before the link stands; after that one record. Every record must carry data: key updates, which cost the
receiver more than the sender, end the connection, and so the sender dials anew after `MAX_RECORDS`.

Source: libp2p specifications, ``tls/tls.md``; RFC 8446.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from OpenSSL import SSL, crypto

from aggregator.links.errors import LinkBroken, OtherVersion
from aggregator.links.keys import LinkKey
from protocol.version import SUPPORTED, Versions

MAX_HANDSHAKE_BYTES: Final = 16 * 1024
"""Ten times what an honest handshake takes."""
MAX_DATA_BYTES: Final = 16 * 1024
"""Data in one record (RFC 8446, 5.1)."""
MAX_RECORDS: Final = 2**24
"""Records under one key: AES-GCM allows 2^24.5 (RFC 8446, 5.5)."""
_HEADER_BYTES: Final = 5
_MAX_OVERHEAD_BYTES: Final = 5 + 256
_MAX_RECORD_BYTES: Final = MAX_DATA_BYTES + _MAX_OVERHEAD_BYTES
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def welcome(versions: Versions) -> bytes:
    """What a member says whose software knows these protocol versions: the lowest and the highest."""
    return bytes([versions.low, versions.high])


def context_for(key: LinkKey) -> SSL.Context:
    """What all links of a member share: its certificate, and the rules."""
    private = Ed25519PrivateKey.from_private_bytes(key.secret)
    nobody = x509.Name([])
    certificate = (x509.CertificateBuilder(nobody, nobody, private.public_key(), 1, _BEGINNING, _END)).sign(
        private, None
    )
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # with the line before: nothing is ever resumed
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify_depth(0)
    # Nobody vouches for anybody here: the handshake proves the key, and its owner is looked up.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.use_certificate(certificate)
    context.use_privatekey(private)
    return context


class Channel:
    """One end of an encrypted connection."""

    __slots__ = ("_partial", "_taken_bytes", "_tls", "_versions", "dialled", "peer_key", "records")

    def __init__(self, context: SSL.Context, *, dialled: bool, versions: Versions = SUPPORTED) -> None:
        self._versions = versions
        self._tls = SSL.Connection(context, None)
        self.dialled = dialled
        if dialled:
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()
        self._taken_bytes = 0
        self._partial = b""
        self.peer_key: bytes | None = None
        """The key that the other side has proved to hold; none before that."""
        self.records = 0
        """Records encrypted so far."""

    def advance(self, data: bytes) -> bytes:
        """A step of the handshake: bytes that arrived, and those to send. Ends when `peer_key` is known.

        Raises:
            LinkBroken: the other side is not what it must be.
        """
        self._taken_bytes += len(data)
        if self._taken_bytes > MAX_HANDSHAKE_BYTES:
            raise LinkBroken("the handshake takes too many bytes")
        try:
            if data:
                self._tls.bio_write(data)
            self._tls.do_handshake()
            self.peer_key = self._proved_key()
        except SSL.WantReadError:
            pass
        except SSL.Error as reason:
            raise LinkBroken(f"the handshake failed: {reason}") from reason
        return self._leaving()

    def welcomed(self, data: bytes) -> bool:
        """Whether bytes that arrived after the handshake bring the welcome; the dialler waits for it.

        Raises:
            OtherVersion: the other side knows no protocol version that this one does.
            LinkBroken: this is no welcome.
        """
        self._taken_bytes += len(data)
        if self._taken_bytes > MAX_HANDSHAKE_BYTES:
            raise LinkBroken("there is no end of the welcome")
        try:
            if data:
                self._tls.bio_write(data)
            said = self._tls.recv(MAX_DATA_BYTES)
        except SSL.WantReadError:
            return False
        except SSL.Error as reason:
            raise LinkBroken(f"no welcome: {reason}") from reason
        try:
            theirs = Versions(*said)
        except (ValueError, TypeError) as reason:
            raise LinkBroken("this is no welcome") from reason
        if not theirs.overlap(self._versions):
            raise OtherVersion(
                f"the other side knows version {theirs} of the protocol, this software {self._versions}: "
                "upgrade the older of the two"
            )
        return True

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """At most `MAX_DATA_BYTES`, as one record to send.

        Raises:
            LinkBroken: the connection is past sending.
        """
        self.records += 1
        try:
            self._tls.send(data)
            return self._tls.bio_read(len(data) + _MAX_OVERHEAD_BYTES)
        except SSL.Error as reason:
            raise LinkBroken(f"nothing can be sent any more: {reason!r}") from reason

    def decrypt(self, data: bytes) -> bytes:
        """The data in the records that are whole now.

        Raises:
            LinkBroken: a record is forged, too long or carries no data.
        """
        if self._partial:
            data = self._partial + data
        found, start, end = [], 0, len(data)
        while end - start >= _HEADER_BYTES:
            stop = start + _HEADER_BYTES + int.from_bytes(data[start + 3 : start + 5], "big")
            if stop - start > _MAX_RECORD_BYTES:
                raise LinkBroken("a record is too long")
            if stop > end:
                break
            try:
                self._tls.bio_write(data[start:stop])
                found.append(self._tls.recv(stop - start))
            except SSL.Error as reason:  # also if it wants more: then the record carried no data
                raise LinkBroken(f"not a record with data: {reason!r}") from reason
            start = stop
        self._partial = data[start:]
        return found[0] if len(found) == 1 else b"".join(found)

    def _proved_key(self) -> bytes:
        certificate = self._tls.get_peer_certificate()
        assert certificate is not None, "the handshake demands one"
        try:
            key = certificate.get_pubkey().to_cryptography_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, crypto.Error) as reason:
            raise LinkBroken(f"a certificate with an unreadable key: {reason}") from reason
        if not isinstance(key, Ed25519PublicKey):
            raise LinkBroken("link keys are Ed25519")
        return key.public_bytes_raw()

    def _leaving(self) -> bytes:
        try:
            return self._tls.bio_read(MAX_HANDSHAKE_BYTES)
        except SSL.WantReadError:
            return b""
