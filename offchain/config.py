"""What the operator of a provider, validator, verifier or client configures: one TOML file per role.

Unknown keys are errors, so that a misspelt setting is never silently ignored. Paths are relative to the
file they stand in.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from offchain.evaluation.containers import Choice
from protocol.chain.external_signer import ExternalSigner
from protocol.crypto import Key
from protocol.errors import ProtocolError
from protocol.keyfile import read_key
from protocol.signer import Signer

M = TypeVar("M", bound=BaseModel)


class InvalidConfig(ProtocolError):
    """A configuration file that cannot be used; says where and why."""


class KeyNeeded(InvalidConfig):
    """The account's key is with an external signer, and this cannot be done without it."""


def read_toml(kind: type[M], path: Path) -> M:
    """The ``kind`` that the TOML file at ``path`` describes; raises `InvalidConfig`, naming file and key."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as reason:
        raise InvalidConfig(f"cannot read {path}: {reason.strerror}") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise InvalidConfig(f"{path} is not TOML: {reason}") from reason
    except ValidationError as reason:
        first = reason.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InvalidConfig(f"{path}: {where}: {first['msg']}") from reason


class ActorConfig(BaseModel):
    """What all roles share."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _paths: ClassVar[tuple[str, ...]] = (
        "key_file",
        "password_file",
        "data_dir",
        "network",
        "webhook_secret_file",
    )
    """What is relative to the file it stands in."""

    key_file: Path | None = None
    """A keystore, or the private key in hex; see `protocol.keyfile`."""
    signer_url: str | None = Field(default=None, pattern="^https?://")
    """Instead of `key_file`: the JSON-RPC signer that signs for `account`, such as a hardware wallet's."""
    account: str | None = Field(default=None, pattern="^0x[0-9a-fA-F]{40}$")
    """Whose key the signer at `signer_url` has."""
    signer_timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """How long the signer may take for one answer, while somebody looks for the device."""
    password_file: Path | None = None
    """What opens the keystore, if neither the environment nor a terminal says it."""
    data_dir: Path
    """Where files, checkpoints and records are kept."""
    network: Path
    """The network file: chain, contracts, aggregators."""
    gateway_host: str = "127.0.0.1"
    """The address to listen on for those who fetch files; 0.0.0.0 for all."""
    gateway_port: int = Field(default=0, ge=0, lt=65536)
    """0 for any free port; a client's must be fixed, since its orders' links name it."""
    public_url: str | None = None
    """How others reach the gateway, if not by host and port."""
    poll_s: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two looks at the ledger."""
    storage: Literal["embedded", "ipfs"] = "embedded"
    """Where files are kept: in `data_dir`, or, once they are public, in a Kubo daemon."""
    ipfs_rpc: str = "/ip4/127.0.0.1/tcp/5001/http"
    """The daemon's RPC address; whoever reaches it owns the daemon, so it belongs on loopback."""
    ipfs_any_version: bool = False
    """Whether to go on with a daemon whose version the client library does not know."""
    ipfs_timeout_s: float = Field(default=120.0, gt=0, le=3600)
    """How long the daemon may be silent within one call."""
    keep_s: int = Field(default=7 * 86_400, ge=0)
    """How long what an order needed is kept and served after the order was settled."""
    metrics_host: str = "127.0.0.1"
    """The address to listen on for those who watch this process."""
    metrics_port: int | None = Field(default=None, ge=0, lt=65536)
    """Where ``/metrics``, ``/healthz`` and ``/readyz`` answer, 0 for any free port; nowhere if not set."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in the TOML file at ``path``; raises `InvalidConfig`."""
        config = read_toml(cls, path)
        base = path.resolve().parent
        given = {name: getattr(config, name, None) for name in cls._paths}
        return config.model_copy(update={name: base / path for name, path in given.items() if path})

    @model_validator(mode="after")
    def _one_signer(self) -> Self:
        if (self.signer_url is None) != (self.account is None):
            raise ValueError("signer_url and account go together")
        if (self.key_file is None) == (self.signer_url is None):
            raise ValueError("either key_file or signer_url and account are needed, and not both")
        return self

    def key(self) -> Key:
        """The account's secret key, for what no signer outside can do.

        Raises:
            InvalidKeyFile: it cannot be read. KeyNeeded: an external signer has it.
        """
        if self.key_file is None:
            raise KeyNeeded(
                "this needs the account's secret key, from which the salts of commitments follow, and no "
                "external signer gives it: name a keystore as key_file instead of signer_url and account"
            )
        return read_key(self.key_file, self.password_file)

    def signer(self) -> Signer:
        """Whoever signs for the account: its key, or an external signer; raises `InvalidKeyFile`."""
        if self.signer_url is None or self.account is None:
            return self.key()
        return ExternalSigner(self.signer_url, bytes.fromhex(self.account[2:]), self.signer_timeout_s)

    def signed_by(self, signer_url: str | None, account: str | None) -> Self:
        """The same with an external signer instead of what it says; raises `InvalidConfig`."""
        changes = {
            "key_file": None,
            "signer_url": signer_url or self.signer_url,
            "account": account or self.account,
        }
        try:
            return type(self).model_validate(self.model_dump() | changes)
        except ValidationError as reason:
            first = reason.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the signer"
            raise InvalidConfig(f"{where}: {first['msg']}") from reason

    @property
    def address(self) -> bytes:
        """The account, 20 bytes; raises `InvalidKeyFile`."""
        return self.key().address if self.account is None else bytes.fromhex(self.account[2:])


class JurorConfig(ActorConfig):
    """What all share who score models: validators, verifiers, and providers where a larger jury is called."""

    judge: bool = True
    """Whether to serve as a juror in disputes it is not party to."""
    container: Choice = "auto"
    """In what scoring holds its sums; changes how long it takes, never a score."""
    memory_bytes: int = Field(default=8 * 2**30, ge=2**20)
    """What scoring may allocate; a model of which one sample takes more is left to others."""


class ProviderConfig(JurorConfig):
    """A provider's choices."""

    parallel_orders: int | None = Field(default=None, ge=1, le=64)
    """Orders trained at once, shared out among the devices; as many as there are devices if not set."""
    min_reward_rate_wei: int = Field(default=0, ge=0)
    """Orders that pay less per second of training are left to others."""
    max_parameters: int = Field(default=50_000_000, ge=1)
    """Models with more are left to others."""
    max_training_bytes: int = Field(default=8 * 2**30, ge=1)
    """Models whose training would take more memory by the estimate are left to others."""
    seed: int = 0
    """Of initial parameters and of the order of samples."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """The highest of the schedule."""
    batch_size: int = Field(default=64, ge=1)
    """Samples in one step."""
    named_splits: bool = True
    """Whether to train orders whose client named the test fragments, which may be unlike the others."""
    deadline_margin_s: float = Field(default=3.0, gt=0)
    """Training stops this long before the training window closes."""
    patience_steps: int | None = Field(default=None, ge=1)
    """Give a training up after that many steps without improvement; train to the deadline if not set."""
    stop_early: bool = True
    """Whether to end a training in which the second fall of the learning rate brought nothing better."""
    platform: str | None = None
    """JAX platform (`cpu`, `cuda`, `tpu`); the best one at hand if not set."""


class ContesterConfig(JurorConfig):
    """What validators and verifiers share."""

    report: bool = True
    """Whether to report models and test sets that cannot be fetched; locks `report_stake_wei` for each."""
    appeal: bool = False
    """Whether to appeal against verdicts that find own work wrong; each puts `appeal_bond_wei` at risk."""


class ValidatorConfig(ContesterConfig):
    """A validator's choices."""

    v_stake_wei: int | None = Field(default=None, ge=1)
    """Stake per validation; the protocol's minimum if not set."""


class VerifierConfig(ContesterConfig):
    """A verifier's choices."""

    c_stake_wei: int | None = Field(default=None, ge=1)
    """Stake per challenge; the protocol's minimum if not set."""


class ClientConfig(ActorConfig):
    """A client's choices."""

    webhook_url: str | None = Field(default=None, pattern="^https?://")
    """Where to POST when an own order changes phase; nowhere if not set."""
    webhook_secret_file: Path | None = None
    """What these messages are signed with; `dtn client webhook` makes it."""

    @model_validator(mode="after")
    def _webhook_whole(self) -> Self:
        if (self.webhook_url is None) != (self.webhook_secret_file is None):
            raise ValueError("webhook_url and webhook_secret_file go together")
        return self


def read_any(path: Path) -> ActorConfig:
    """The configuration of whatever role in the TOML file at ``path``; raises `InvalidConfig`."""
    refusal = None
    for kind in (ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig):
        try:
            return kind.read(path)
        except InvalidConfig as reason:
            refusal = refusal or reason
    assert refusal is not None
    raise refusal
