"""``dtn storage``: the files that a role keeps, as files, as CARs, and from and to other holders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from dtn.home import default_client
from dtn.output import JsonFlag, console, print_json, table, transfer
from offchain.config import ActorConfig, InvalidConfig, read_any
from offchain.files import NotWritten
from offchain.storage import CarReader, Cid, InvalidCar, InvalidCid, fetch_file, parse_link, write_car
from offchain.storage.choice import open_store
from offchain.storage.embedded import EmbeddedStore

app = typer.Typer(help="The files that a role keeps.", no_args_is_help=True)

MAX_FETCH_BYTES: Final = 64 * 2**30
"""What `pin` and `fetch` take at most unless told otherwise."""

Config = Annotated[
    Path | None,
    typer.Option("--config", help="A role's TOML file; by default $DTN_CLIENT or the local client's."),
]
Public = Annotated[bool, typer.Option("--public", help="Let others fetch it at once.")]
MaxBytes = Annotated[int, typer.Option(help="Give up on a file larger than so many bytes.")]
Links = Annotated[list[str], typer.Argument(help="Links to one file, http://HOST/ipfs/CID, of any holders.")]


@app.command()
def add(file: Path, public: Public = False, config: Config = None, as_json: JsonFlag = False) -> None:
    """Keep a file; prints its CID."""
    store = open_store(_settings(config))
    with _reading(file) as stream, transfer("bytes kept", file.stat().st_size) as told:
        cid = store.put_file(stream, told)
    _published(store, [cid], public, as_json)


@app.command("import")
def import_(
    car: Annotated[Path, typer.Argument(help="A CAR, version 1.")],
    public: Public = False,
    config: Config = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep the files that a CAR holds; prints their CIDs. All of them are whole, or none is kept."""
    store = open_store(_settings(config))
    with _reading(car) as stream, transfer("bytes read", car.stat().st_size) as told:
        reader = CarReader(stream)
        if not reader.roots:
            raise InvalidCar(f"{car} names no roots, so nobody can say what is to be kept")
        store.take(reader.roots, reader, told)
    _published(store, list(reader.roots), public, as_json)


@app.command()
def export(
    cid: str,
    car: Annotated[Path, typer.Argument(help="The CAR to write.")],
    config: Config = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a kept file, blocks and all, to a CAR that any IPFS node imports."""
    store, root = open_store(_settings(config)), Cid.parse(cid)
    partial, written = car.with_name(car.name + ".part"), 0
    with transfer("bytes written", store.size(root)) as told:
        try:
            with open(partial, "wb") as file:
                for piece in write_car([root], store.blocks(root)):
                    written += file.write(piece)
                    told(written)
            partial.replace(car)
        except OSError as reason:
            raise NotWritten(f"cannot write {car}: {reason.strerror}; choose another file") from reason
        finally:
            partial.unlink(missing_ok=True)
    _say(as_json, {"cid": cid, "car": str(car), "bytes": written}, f"wrote {written} bytes to {car}")


@app.command()
def fetch(
    links: Links,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the file.")],
    max_bytes: MaxBytes = MAX_FETCH_BYTES,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a file from any of its holders; run again, it goes on where it was interrupted."""
    cid, gateways = _one_file(links)
    with transfer("bytes fetched", None) as told:
        fetch_file(cid, gateways, output, max_bytes=max_bytes, progress=told)
    size = output.stat().st_size
    _say(as_json, {"cid": str(cid), "file": str(output), "bytes": size}, f"wrote {size} bytes to {output}")


@app.command()
def pin(
    links: Links,
    public: Public = False,
    max_bytes: MaxBytes = MAX_FETCH_BYTES,
    config: Config = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep a replica of a file that others hold."""
    settings = _settings(config)
    store, (cid, gateways) = open_store(settings), _one_file(links)
    if not store.has(cid):
        replica = settings.data_dir / "downloads" / str(cid)
        with transfer("bytes fetched", None) as told:
            fetch_file(cid, gateways, replica, max_bytes=max_bytes, progress=told)
        with _reading(replica) as stream:
            kept = store.put_file(stream)
        replica.unlink()
        if kept != cid:
            store.unpin(kept)
            raise InvalidCid(f"{cid} was built with other settings than ours; use `dtn storage import`")
    _published(store, [cid], public, as_json)


@app.command()
def publish(cid: str, config: Config = None, as_json: JsonFlag = False) -> None:
    """Let others fetch a kept file."""
    _published(open_store(_settings(config)), [Cid.parse(cid)], True, as_json)


@app.command()
def unpin(cid: str, config: Config = None, as_json: JsonFlag = False) -> None:
    """Keep a file no longer; blocks that other files share stay."""
    open_store(_settings(config)).unpin(Cid.parse(cid))
    _say(as_json, {"cid": cid}, f"{cid} is not kept any more")


@app.command()
def ls(config: Config = None, as_json: JsonFlag = False) -> None:
    """List the kept files."""
    pins = open_store(_settings(config)).pins()
    if as_json:
        print_json(
            [
                {"cid": str(pin.cid), "bytes": pin.size_bytes, "blocks": pin.blocks, "public": pin.is_public}
                for pin in pins
            ]
        )
        return
    rows = [(pin.cid, pin.size_bytes, pin.blocks, "yes" if pin.is_public else "no") for pin in pins]
    table("kept files", ("CID", "bytes", "blocks", "public"), rows)


@app.command()
def gc(config: Config = None, as_json: JsonFlag = False) -> None:
    """Remove blocks that no kept file needs, and what interrupted writes left."""
    collected = open_store(_settings(config)).collect()
    answer = {"blocks": collected.blocks, "bytes": collected.size_bytes}
    _say(as_json, answer, f"removed {collected.blocks} blocks, {collected.size_bytes} bytes")


def _settings(path: Path | None) -> ActorConfig:
    chosen = path or default_client()
    if not chosen.exists():
        raise InvalidConfig(f"no configuration at {chosen}: name a role's file with --config")
    return read_any(chosen)


def _one_file(links: list[str]) -> tuple[Cid, list[str]]:
    """The file that all links name, and the gateways."""
    parsed = [parse_link(link) for link in links]
    if len({cid for _, cid in parsed}) != 1:
        raise InvalidCid("all links must name the same file")
    return parsed[0][1], [gateway for gateway, _ in parsed]


def _published(store: EmbeddedStore, cids: list[Cid], public: bool, as_json: bool) -> None:
    for cid in cids if public else []:
        store.publish(cid)
    _say(as_json, {"cids": [str(cid) for cid in cids], "public": public}, "\n".join(map(str, cids)))


def _say(as_json: bool, answer: object, text: str) -> None:
    if as_json:
        print_json(answer)
    else:
        console.print(text, soft_wrap=True)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as reason:
        raise InvalidConfig(f"cannot read {path}: {reason.strerror}") from reason
