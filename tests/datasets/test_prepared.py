"""Prepared data is all of the data, once, and what was tampered with is noticed before it is put."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dtn.app import app
from offchain.data import Form, decode_fragment
from offchain.datasets.builtin import BUILTIN
from offchain.datasets.prepared import MANIFEST, read_fragments, read_manifest, write_prepared
from offchain.datasets.samples import InvalidData
from protocol.crypto import sha256

RUNNER = CliRunner()


def test_fragments_hold_every_sample_once_with_its_label(tmp_path: Path) -> None:
    samples = BUILTIN["digits"]()
    manifest = write_prepared(samples, tmp_path / "digits", 12)
    assert read_manifest(tmp_path / "digits") == manifest
    form = Form((8, 8, 1), None, (), 10)
    parts = [decode_fragment(data, form) for data, _ in read_fragments(tmp_path / "digits", manifest)]
    dealt = sorted((x.tobytes(), int(y)) for f in parts for x, y in zip(f.x, f.y, strict=True))
    assert dealt == sorted(zip((x.tobytes() for x in samples.x), map(int, samples.y), strict=True))
    assert sum(fragment.samples for fragment in manifest.fragments) == 1797
    assert len({fragment.sha256 for fragment in manifest.fragments}) == 12


def test_a_folder_is_never_mixed_and_a_changed_fragment_is_noticed(tmp_path: Path) -> None:
    samples = BUILTIN["diabetes"]()
    manifest = write_prepared(samples, tmp_path, 10)
    with pytest.raises(InvalidData, match="is not empty"):
        write_prepared(samples, tmp_path, 10)
    path = tmp_path / manifest.fragments[4].file
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidData, match="is not what was prepared"):
        list(read_fragments(tmp_path, manifest))
    path.unlink()
    with pytest.raises(InvalidData, match="cannot read"):
        list(read_fragments(tmp_path, manifest))
    (tmp_path / MANIFEST).write_text('{"version": "dtn-data-9"}')
    with pytest.raises(InvalidData, match="version"):
        read_manifest(tmp_path)
    with pytest.raises(InvalidData, match="no prepared data"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(InvalidData, match="10 to 1024 fragments"):
        write_prepared(samples, tmp_path / "few", 9)


def test_the_command_prepares_what_a_person_has(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("age,height,kind\n" + "\n".join(f"{n},{n * 0.5},{'ab'[n % 2]}" for n in range(40)))
    out = tmp_path / "out"
    done = RUNNER.invoke(
        app, ["data", "prepare", str(table), "--target", "kind", "--out", str(out), "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["samples"], said["classes"], said["about"]["labels"]) == (40, 2, ["a", "b"])
    for fragment in said["fragments"]:
        assert "0x" + sha256((out / fragment["file"]).read_bytes()).hex() == fragment["sha256"]
    shown = RUNNER.invoke(app, ["data", "show", str(out)])
    assert shown.exit_code == 0 and "classification" in shown.output
    text = tmp_path / "book.txt"
    text.write_text("to be or not to be " * 100)
    done = RUNNER.invoke(
        app, ["data", "prepare", str(text), "--length", "16", "-o", str(tmp_path / "b"), "--json"]
    )
    assert done.exit_code == 0 and read_manifest(tmp_path / "b").output == "next_token"
    with pytest.raises(InvalidData, match="row 2: column 'age'"):
        table.write_text("age,kind\nold,a\n")
        app(["data", "prepare", str(table), "-o", str(tmp_path / "c")], standalone_mode=False)
    with pytest.raises(InvalidData, match="cannot tell what"):
        app(["data", "prepare", str(tmp_path / "x.bin"), "-o", str(tmp_path / "d")], standalone_mode=False)
    assert not (tmp_path / "c").exists(), "nothing is left of a refused file"


def test_token_windows_keep_their_type(tmp_path: Path) -> None:
    samples = BUILTIN["python-docs"]()
    manifest = write_prepared(samples, tmp_path, 10)
    vocabulary = manifest.vocabulary
    assert vocabulary == len(samples.about["alphabet"]) == manifest.classes
    data, count = next(iter(read_fragments(tmp_path, manifest)))
    fragment = decode_fragment(data, Form((64,), vocabulary, (64,), vocabulary))
    assert fragment.x.dtype == np.int32 and len(fragment.y) == count
