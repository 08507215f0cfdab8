"""A local network whose contracts ape deployed, as docs/toolchain.md says for BSC testnet.

    python -m tests.end_to_end.ape_network --aggregators 30 --threshold 18 FOLDER

starts one and waits for Ctrl-C; ``DTN_HOME=FOLDER`` then makes ``dtn`` use it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from eth_account import Account
from eth_utils import to_checksum_address
from web3 import Web3

from dtn.devnet import Devnet, Shape
from dtn.devnet.network import PARAMETERS, role_of
from protocol.chain.deployment import AddressBook
from protocol.crypto import Key

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ALIAS, PASSPHRASE = "deployer", "correct horse"


class ApeNetwork(Devnet):
    """A devnet on a chain that says it is BSC testnet; an account of ape's own deploys the contracts."""

    chain_id: ClassVar[int] = 97
    transactions = 0
    """That the deployment took."""

    def deploy_contracts(self, web3: Web3, shape: Shape, keys: Mapping[str, Key]) -> AddressBook:
        self.import_account(keys["deployer"])
        self.write_deployment(shape, keys)
        book = self.folder / "addresses.json"
        done = self.ape_run_deploy(web3, "--output", str(book), "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        self.transactions = web3.eth.get_transaction_count(to_checksum_address(keys["deployer"].address))
        return AddressBook.model_validate_json(book.read_bytes())

    def import_account(self, key: Key) -> None:
        """What ``ape accounts import`` writes, with a kinder key derivation."""
        folder = self.folder / "ape" / "accounts"
        folder.mkdir(parents=True)
        keystore = Account.encrypt(key.secret, PASSPHRASE, kdf="pbkdf2", iterations=1_000)
        (folder / f"{ALIAS}.json").write_text(json.dumps(keystore))

    def write_deployment(self, shape: Shape, keys: Mapping[str, Key]) -> None:
        """The file that ``--config`` takes."""

        def address(name: str) -> str:
            return to_checksum_address(keys[name].address)

        members = [address(name) for name in keys if role_of(name) == "aggregator"]
        lines = [
            f"members = {json.dumps(members)}",
            *([f"threshold = {shape.threshold}"] if shape.threshold else []),
            *(
                f'{what} = "{address(who)}"'
                for what, who in (("treasury", "treasury"), ("owner", "deployer"))
            ),
            "[parameters]",
            *(f"{name} = {value}" for name, value in {**PARAMETERS, **shape.parameters}.items()),
        ]
        (self.folder / "deployment.toml").write_text("\n".join(lines) + "\n")

    def ape_run_deploy(
        self, web3: Web3, *options: str, answers: str = "", passphrase: str = PASSPHRASE
    ) -> subprocess.CompletedProcess[str]:
        """The documented command, in this repository."""
        given = ["--account", ALIAS, "--config", str(self.folder / "deployment.toml"), *options]
        return subprocess.run(
            [str(BIN / "ape"), "run", "deploy", "--network", "ethereum:bsc-testnet:node", *given],
            cwd=ROOT,
            env=os.environ
            | {
                "PATH": os.pathsep.join([str(BIN), str(ROOT / "node_modules" / ".bin"), os.environ["PATH"]]),
                "APE_DATA_FOLDER": str(self.folder / "ape"),
                "SOLCX_BINARY_PATH": str(ROOT / "build" / "solc"),
                "BSC_TESTNET_RPC": web3.provider.endpoint_uri,  # type: ignore[attr-defined]
                f"APE_ACCOUNTS_{ALIAS}_PASSPHRASE": passphrase,
            },
            input=answers,
            capture_output=True,
            text=True,
            timeout=300,
        )


def main() -> None:
    """Start a network and keep it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--aggregators", type=int, default=4)
    parser.add_argument("--threshold", type=int)
    arguments = parser.parse_args()
    shape = Shape(aggregators=arguments.aggregators, threshold=arguments.threshold)
    with ApeNetwork(arguments.folder / "devnet", lambda text: print(text, flush=True)).lifetime(shape):
        print("up", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
