"""Every error the protocol raises on purpose.

    ProtocolError
    ├── InvalidKey            a private key that is not one
    ├── InvalidSignature      a signature that is malformed, not canonical, or not by whom it says
    ├── InvalidDocument       a task document that cannot be read or does not fit the protocol
    ├── InvalidArtifact       a model file or data fragment that is not what it must be
    ├── InvalidEncoding       bytes that do not decode to the message they claim to be
    ├── UnknownVersion        rules of a protocol version that this software does not know
    ├── ChainError            the chain refused, or cannot be reached
    └── SignerError           no signature from an external signer
        ├── SignerUnavailable it does not answer, or not as a signer does
        ├── SignerRefused     it, or the person beside it, declined
        └── SignedOtherwise   it signed something else, or for another account

Each carries one sentence that says what is wrong and, where a person can act, what to do.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of all errors raised on purpose."""


class InvalidKey(ProtocolError):
    """A private key that is not one."""


class InvalidSignature(ProtocolError):
    """A signature that is malformed, not canonical, or not by whom it says."""


class InvalidDocument(ProtocolError):
    """A task document that cannot be read or does not fit the protocol."""


class InvalidArtifact(ProtocolError):
    """A model file or data fragment that is not what it must be."""


class InvalidEncoding(ProtocolError):
    """Bytes that do not decode to the message they claim to be."""


class UnknownVersion(ProtocolError):
    """Rules of a protocol version that this software does not know."""


class ChainError(ProtocolError):
    """The chain refused a call, or cannot be reached."""


class SignerError(ProtocolError):
    """No signature that can be used came from an external signer."""


class SignerUnavailable(SignerError):
    """An external signer does not answer in time, or not as a signer does."""


class SignerRefused(SignerError):
    """An external signer, or the person beside it, declined to sign."""


class SignedOtherwise(SignerError):
    """An external signer signed something else than it was asked to, or with another key."""
