"""What can go wrong with a link."""

from __future__ import annotations

from protocol.errors import ProtocolError


class LinkError(ProtocolError):
    """A link cannot be set up as configured."""


class LinkBroken(ProtocolError):
    """The other side does not keep to the protocol of links; the connection ends."""


class OtherVersion(LinkBroken):
    """The other side is who it must be, and knows no protocol version that this one does."""
