"""What JAX keeps on the disk: torn programs are mended, and it is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from offchain.compiled_programs import keep_compiled_programs

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from offchain.compiled_programs import keep_compiled_programs
keep_compiled_programs(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
assert jax.jit(lambda x: jnp.tanh(x) * 3 + 1)(jnp.float32(0)) == 1
print(sum("cache_hits" in event for event in events))
"""

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """This process goes on with the folder that all tests share."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def hits(folder: Path) -> int:
    """How many programs another process found there; whatever JAX warns of fails it."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    return int(done.stdout)


def entries(folder: Path) -> dict[str, bytes]:
    """What is kept."""
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


def test_a_program_torn_while_it_was_written_is_written_again(tmp_path: Path) -> None:
    assert hits(tmp_path) == 0
    whole = entries(tmp_path)
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    assert hits(tmp_path) == 0
    assert entries(tmp_path).keys() == whole.keys()
    assert hits(tmp_path) == len(whole) > 0


def test_what_is_whole_or_not_known_stays_and_what_is_torn_goes(tmp_path: Path) -> None:
    packed = zlib.compress(os.urandom(3 << 20))
    kept = {"whole-cache": packed, "otherwise-cache": b"\x28\xb5\x2f\xfd", "other": b""}
    torn = {
        "short-cache": packed[:-1],
        "shorter-cache": packed[:1],
        "empty-cache": b"",
        "wrong-cache": packed[:900] + bytes(100) + packed[1000:],
    }
    for name, data in (kept | torn).items():
        (tmp_path / name).write_bytes(data)
    keep_compiled_programs(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == kept.keys()


def test_only_what_was_written_since_the_last_look_is_looked_through(tmp_path: Path) -> None:
    keep_compiled_programs(tmp_path)
    (old := tmp_path / "old-cache").write_bytes(b"")
    os.utime(old, (1, 1))
    keep_compiled_programs(tmp_path)
    assert old.exists()


def test_what_was_used_longest_ago_goes_when_there_is_too_much(tmp_path: Path) -> None:
    data = zlib.compress(os.urandom(1000))
    for age in range(5):
        (path := tmp_path / f"{age}-cache").write_bytes(data)
        os.utime(path, (10_000 - age, 5_000))
    keep_compiled_programs(tmp_path, most_bytes=3 * len(data) + 7)
    assert entries(tmp_path).keys() == {"0-cache", "1-cache", "2-cache"}


def test_a_folder_that_cannot_be_made_keeps_nobody_from_computing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    keep_compiled_programs(tmp_path / "file" / "below")
