"""``dtn key``: keystores come and change without a secret in arguments, output or the process list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from protocol.crypto import Key
from protocol.keyfile import encrypt, read_key, write_private

KEY = Key(bytes(range(1, 33)))
PASSWORDS = ("the first password", "the second password")


def dtn(*arguments: object, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own, whose output holds no secret."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DTN_")}
    done = subprocess.run(
        [sys.executable, "-m", "dtn", "key", *map(str, arguments)],
        input=stdin or "",
        capture_output=True,
        text=True,
        env={**environment, **variables},
        timeout=120,
    )
    for secret in (KEY.secret.hex(), *PASSWORDS):
        assert secret not in done.stdout + done.stderr
    return done


@pytest.fixture
def passwords(tmp_path: Path) -> tuple[Path, Path]:
    """Two password files."""
    files = (tmp_path / "first", tmp_path / "second")
    for file, password in zip(files, PASSWORDS, strict=True):
        write_private(file, password + "\n")
    return files


def test_a_key_is_imported_and_its_password_changed(tmp_path: Path, passwords: tuple[Path, Path]) -> None:
    first, second = passwords
    store = tmp_path / "account.json"
    made = dtn("import", store, "--from", "-", "--password-file", first, stdin=KEY.secret.hex() + "\n")
    assert made.returncode == 0, made.stderr
    assert bytes.fromhex(made.stdout.strip()[2:]) == KEY.address
    assert store.stat().st_mode & 0o777 == 0o600
    assert read_key(store, first).address == KEY.address
    again = dtn("new", store, "--password-file", first)
    assert again.returncode == 1 and "exists already" in again.stderr
    wrong = dtn("change-password", store, "--password-file", second, "--new-password-file", second)
    assert wrong.returncode == 1 and "wrong" in wrong.stderr
    changed = dtn("change-password", store, "--password-file", first, DTN_NEW_PASSWORD=PASSWORDS[1])
    assert changed.returncode == 0, changed.stderr
    assert json.loads(dtn("address", store, "--json").stdout)["address"] == made.stdout.strip()
    assert read_key(store, second).address == KEY.address


def test_a_new_account_needs_a_password_from_somewhere(tmp_path: Path) -> None:
    store = tmp_path / "account.json"
    nowhere = dtn("new", store)
    assert nowhere.returncode == 1 and "--password-file" in nowhere.stderr and not store.exists()
    empty = dtn("new", store, DTN_PASSWORD="")
    assert empty.returncode == 1 and not store.exists()
    made = dtn("new", store, DTN_PASSWORD=PASSWORDS[0])
    assert made.returncode == 0 and made.stdout.strip().startswith("0x")


def test_a_running_role_shows_no_secret_in_its_arguments_or_log(
    tmp_path: Path, passwords: tuple[Path, Path]
) -> None:
    """The daemon runs from a keystore against a network that does not answer: it logs, and waits."""
    write_private(tmp_path / "client.key", encrypt(KEY, PASSWORDS[0], scrypt_n=2**10))
    book = dict.fromkeys(
        ("parameters", "token", "registry", "orders", "committee", "settlement", "treasury"), "0x" + "11" * 20
    )
    network = {
        "rpc_url": "http://127.0.0.1:1",
        "address_book": {"chain_id": 1, "block": 1, **book},
        "aggregators": ["http://127.0.0.1:1"],
    }
    (tmp_path / "network.json").write_text(json.dumps(network))
    config = tmp_path / "client.toml"
    config.write_text('key_file = "client.key"\ndata_dir = "data"\nnetwork = "network.json"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "dtn", "-v", "client", "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DTN_PASSWORD_FILE": str(passwords[0])},
    )
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if "no aggregator answers" in line:
                break
        arguments = " ".join(psutil.Process(process.pid).cmdline())
        environment = " ".join(psutil.Process(process.pid).environ().values())
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    log = "".join(seen) + rest
    assert f"0x{KEY.address.hex()}" in log, "it runs under this account"
    for secret in (KEY.secret.hex(), PASSWORDS[0]):
        assert secret not in log + arguments + environment
