"""What an aggregator's operator configures: one TOML file, checked before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.chain.deployment import AddressBook
from protocol.crypto import Key
from protocol.errors import ProtocolError
from protocol.keyfile import read_key


class InvalidConfig(ProtocolError):
    """A configuration file that cannot be used; says which line of it and why."""


class AggregatorConfig(BaseModel):
    """One aggregator. Paths are relative to the file they stand in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    key_file: Path
    """A keystore, or the account's private key in hex; see `protocol.keyfile`."""
    password_file: Path | None = None
    """What opens the keystore, if neither the environment nor a terminal says it."""
    data_dir: Path
    """Where the journal lives."""
    rpc_url: str
    """The member's own chain node."""
    address_book: Path
    """The contracts of the network, as `ape run deploy` writes them."""
    link_listen: str
    """Where the other aggregators connect to, as ``tcp://127.0.0.1:5701``."""
    api_host: str = "127.0.0.1"
    """The address to listen on for the public API; 0.0.0.0 for all."""
    api_port: int = Field(gt=0, lt=65536)
    """The port of the API and the page."""
    api_requests_per_s: int = Field(default=50, ge=0)
    """What one address may ask of the API, with four seconds' worth at once; 0 lifts the limit."""
    view_timeout_ms: int = Field(default=1500, ge=200)
    """How long work may wait before another primary is asked for; doubles while that does not help."""
    relay_votes: bool = False
    """Send votes through the primary: for large committees whose members are close to each other."""
    unanimity_ms: int = Field(default=25, ge=0, le=10_000)
    """So long a member hopes for the votes of all, with which a batch takes one phase; 0: never."""
    settle_patience_s: float = Field(default=5.0, gt=0)
    """How long a member waits for another to submit a settlement before it does so itself."""

    @classmethod
    def read(cls, path: Path) -> AggregatorConfig:
        """The configuration in the TOML file at ``path``.

        Raises:
            InvalidConfig: no such file, not TOML, or a field missing, unknown or out of bounds.
        """
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
            config = cls.model_validate(fields)
        except OSError as reason:
            raise InvalidConfig(f"cannot read {path}: {reason.strerror}") from reason
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
            raise InvalidConfig(f"{path} is not TOML: {reason}") from reason
        except ValidationError as reason:
            first = reason.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidConfig(f"{path}: {where}: {first['msg']}") from reason
        base = path.resolve().parent
        paths = ("key_file", "password_file", "data_dir", "address_book")
        given = {name: getattr(config, name) for name in paths}
        return config.model_copy(update={name: base / path for name, path in given.items() if path})

    def key(self) -> Key:
        """The account's key; raises `InvalidKeyFile`."""
        return read_key(self.key_file, self.password_file)

    def book(self) -> AddressBook:
        """The network's contracts."""
        return AddressBook.read(self.address_book)
