"""Prepared data: a folder of fragments and a manifest, ready to be put.

Folder: ``data.json`` (what the samples are, and each fragment's hash, CID and size) and one safetensors file
per fragment. The manifest is written last, so a folder that has one is whole. Fragments hold their salts:
whoever sees the folder sees the test set.

Source: PAI section 4.2.2; design section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from offchain.datasets.samples import InvalidData, Samples
from offchain.storage.unixfs import build
from protocol.architecture import Output
from protocol.crypto import sha256
from protocol.task import MAX_FRAGMENT_BYTES, MAX_FRAGMENTS, MIN_FRAGMENTS, Cid, Hash

MANIFEST: Final = "data.json"
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreparedFragment(_Part):
    """One fragment of the folder."""

    file: Annotated[str, Field(pattern=r"^fragment-\d{4}\.safetensors$")]
    sha256: Hash
    cid: Cid
    size_bytes: Annotated[StrictInt, Field(gt=0, le=MAX_FRAGMENT_BYTES)]
    samples: Annotated[StrictInt, Field(gt=0)]


class Manifest(_Part):
    """What a folder of prepared data holds."""

    version: Literal["dtn-data-1"] = "dtn-data-1"
    output: Output
    input_shape: tuple[StrictInt, ...]
    outputs: Annotated[StrictInt, Field(ge=1)]
    classes: Annotated[StrictInt, Field(ge=2)] | None
    vocabulary: Annotated[StrictInt, Field(ge=2)] | None
    samples: StrictInt
    fragments: Annotated[
        tuple[PreparedFragment, ...], Field(min_length=MIN_FRAGMENTS, max_length=MAX_FRAGMENTS)
    ]
    about: dict[str, Any] = Field(default_factory=dict)
    """See `Samples.about`."""


def write_prepared(
    samples: Samples, folder: Path, count: int, progress: Callable[[int], None] = lambda done: None
) -> Manifest:
    """Deal the samples into ``count`` fragments in a new folder.

    Raises:
        InvalidData: the folder holds something already, cannot be written, or there are too few samples.
    """
    if not MIN_FRAGMENTS <= count <= MAX_FRAGMENTS:
        raise InvalidData(f"a task has {MIN_FRAGMENTS} to {MAX_FRAGMENTS} fragments, not {count}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidData(f"{folder} is not empty; choose another folder")
        fragments = []
        for number, (data, size) in enumerate(samples.fragments(count)):
            name = f"fragment-{number:04d}.safetensors"
            if len(data) > MAX_FRAGMENT_BYTES:
                raise InvalidData(f"a fragment has at most {MAX_FRAGMENT_BYTES} bytes: make more fragments")
            (folder / name).write_bytes(data)
            fragments.append(
                PreparedFragment(
                    file=name,
                    sha256="0x" + sha256(data).hex(),
                    cid=str(build(data)[0]),
                    size_bytes=len(data),
                    samples=size,
                )
            )
            progress(number + 1)
        manifest = Manifest(
            output=samples.output,
            input_shape=samples.input_shape,
            outputs=samples.outputs,
            classes=samples.classes,
            vocabulary=samples.vocabulary,
            samples=len(samples.y),
            fragments=tuple(fragments),
            about=samples.about,
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as reason:
        raise InvalidData(f"cannot write to {folder}: {reason.strerror}") from reason
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; raises `InvalidData`."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InvalidData(f"{path} has more than {MAX_MANIFEST_BYTES} bytes")
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as reason:
        raise InvalidData(
            f"{folder} holds no prepared data: {reason.strerror}; see dtn data prepare"
        ) from reason
    except ValidationError as reason:
        first = reason.errors()[0]
        raise InvalidData(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from reason


def read_fragments(folder: Path, manifest: Manifest) -> Iterator[tuple[bytes, int]]:
    """Fragment files with their sample counts, each as it was prepared; raises `InvalidData`."""
    for fragment in manifest.fragments:
        path = folder / fragment.file
        try:
            data = path.read_bytes()
        except OSError as reason:
            raise InvalidData(f"cannot read {path}: {reason.strerror}; prepare the data again") from reason
        if "0x" + sha256(data).hex() != fragment.sha256:
            raise InvalidData(f"{path} is not what was prepared; prepare the data again")
        yield data, fragment.samples
