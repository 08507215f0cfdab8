"""Get from a wallet: fetch the winning model of an order with nothing but web3 and the public API.

    python scripts/get.py OID --rpc URL --orders ADDRESS -o model.safetensors

It imports nothing of this repository, so it can be read as the definition of Get for any wallet or language:

1. the chain names the committee and where each member's API is: ``OrderBook.settlement`` -> ``committee`` ->
   ``members``, ``registry`` -> ``endpointOf``;
2. of n = 3f + 1 members at most f lie, so an answer that f + 1 of them give word for word is true;
3. the answer's links are IPFS trustless-gateway links: every block is checked against its CID (raw leaves,
   dag-pb nodes of UnixFS files), so it does not matter who serves it;
4. the SHA-256 of the file must be the MID that won.

Guarantees: a file is written only if its SHA-256 is the MID that f + 1 members named. One JSON object on
standard output; one line on standard error and status 1 on failure.

Source: PoT 3.3.1 (Get), algorithm 1 phase 6 (f + 1 identical replies), 3.4 "Achieving Integrity".
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3Exception

TIMEOUT_S: Final = 20
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_BLOCK_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 8
RAW: Final = 0x55
DAG_PB: Final = 0x70


class GetError(Exception):
    """A model that cannot be had; one sentence that says why."""


# Who says what -------------------------------------------------------------------------------------------


def _view(name: str, *outputs: str, inputs: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": "", "type": kind} for kind in inputs],
        "outputs": [{"name": "", "type": kind} for kind in outputs],
        "stateMutability": "view",
    }


def committee_apis(rpc: str, orders: str) -> list[str | None]:
    """Per member of the committee its API's URL, or none if it registered none; all read from the chain."""
    web3 = Web3(HTTPProvider(rpc, request_kwargs={"timeout": TIMEOUT_S}))
    if not web3.is_connected():
        raise GetError(f"no chain node answers at {rpc}")

    def ask(address: str, view: dict[str, Any], *arguments: Any) -> Any:
        contract = web3.eth.contract(address=Web3.to_checksum_address(address), abi=[view])
        return contract.functions[view["name"]](*arguments).call()

    settlement = ask(orders, _view("settlement", "address"))
    registry = ask(settlement, _view("registry", "address"))
    committee = ask(settlement, _view("committee", "address"))
    endpoint_of = _view("endpointOf", "string", "bytes32", inputs=("address",))
    apis: list[str | None] = []
    for member in ask(committee, _view("members", "address[]")):
        endpoint, _ = ask(registry, endpoint_of, member)
        # An endpoint is a comma-separated list of URLs: tcp:// for the other members, http:// for the public.
        apis.append(
            next((url for url in endpoint.split(",") if url.startswith(("http://", "https://"))), None)
        )
    return apis


def needed(members: int) -> int:
    """f + 1 with f = (n - 1) / 3: so many equal answers include one by an honest member."""
    return (members - 1) // 3 + 1


def facts_of(answer: Any) -> str:
    """The part of an answer that members must agree on, in one form."""
    return json.dumps(
        [answer["mid"], answer["winner"], answer["score"], answer["sizeBytes"], answer["links"]]
    )


def ask_committee(apis: list[str | None], oid: str) -> dict[str, Any]:
    """The answer about the winner that f + 1 members give.

    Raises:
        GetError: too few agree; says what each of them answered.
    """
    need = needed(len(apis))
    votes: dict[str, list[dict[str, Any]]] = {}
    said: Counter[str] = Counter()
    for api in apis:
        if api is None:
            continue
        try:
            answer: dict[str, Any] = _json(f"{api}/v1/orders/{oid}/model")
            group = votes.setdefault(facts_of(answer), [])
        except (requests.RequestException, GetError, KeyError, TypeError, ValueError) as reason:
            said[str(reason)] += 1
            continue
        group.append(answer)
        if len(group) >= need:
            return answer
    said[f"one of {len(votes)} different answers"] += sum(map(len, votes.values()))
    detail = "; ".join(f"{count} say: {what}" for what, count in said.items() if count)
    raise GetError(f"fewer than {need} of {len(apis)} aggregators name the same model of {oid} ({detail})")


def _json(url: str) -> Any:
    status, data = _download(url, {}, MAX_ANSWER_BYTES)
    answer = json.loads(data)
    if status != 200:
        # One error shape: {"error": {"code": …, "reason": …}}.
        raise GetError(str(answer["error"]["reason"]))
    return answer


def _download(url: str, parameters: dict[str, str], limit: int) -> tuple[int, bytes]:
    deadline_s = time.monotonic() + TIMEOUT_S
    data = bytearray()
    # Not compressed: what is unpacked would have no bound.
    with requests.get(
        url,
        params=parameters,
        headers={"Accept-Encoding": "identity"},
        timeout=TIMEOUT_S,
        allow_redirects=False,
        stream=True,
    ) as response:
        # Packet by packet: a server that drips its bytes must not hold a reader for ever.
        while chunk := response.raw.read1(limit + 1 - len(data)):
            data += chunk
            if len(data) > limit:
                raise GetError(f"{url} sends more than {limit} bytes")
            if time.monotonic() > deadline_s:
                raise GetError(f"{url} took more than {TIMEOUT_S} s")
    return response.status_code, bytes(data)


# Files as blocks -----------------------------------------------------------------------------------------


def parse_cid(text: str) -> tuple[int, bytes]:
    """Codec and SHA-256 of a CIDv1 in base32; raises `GetError` for any other."""
    try:
        data = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    except ValueError as reason:
        raise GetError(f"{text[:80]!r} is no CID") from reason
    if not text.startswith("b"):
        raise GetError(f"{text[:80]!r} is no CID in base32")
    return parse_cid_bytes(data)


def parse_cid_bytes(data: bytes) -> tuple[int, bytes]:
    """Codec and SHA-256 of a binary CIDv1; raises `GetError` for other kinds."""
    if len(data) != 36 or data[0] != 1 or data[1] not in (RAW, DAG_PB) or data[2:4] != b"\x12\x20":
        raise GetError("only CIDv1 of raw or dag-pb blocks with SHA-256 is in use here")
    return data[1], data[4:]


def cid_text(codec: int, digest: bytes) -> str:
    """A CIDv1 in base32."""
    return "b" + base64.b32encode(bytes([1, codec]) + b"\x12\x20" + digest).decode().rstrip("=").lower()


def protobuf(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message that holds integers and byte strings only."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while position < len(data) and shift < 64:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise GetError("a file node is cut off")

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint()
        if key & 7 != 2 or size > len(data) - position:
            raise GetError("a file node is malformed")
        yield key >> 3, data[position : position + size]
        position += size


def children(node: bytes) -> list[tuple[int, bytes]]:
    """Codec and SHA-256 of the blocks that a dag-pb node links to, in the file's order.

    Raises:
        GetError: no node of a UnixFS file whose bytes are all in its leaves.
    """
    links = []
    for number, value in protobuf(node):
        if not isinstance(value, bytes):
            raise GetError("a file node is malformed")
        fields = dict(protobuf(value))
        # PBNode: field 2 is a link, whose field 1 is a CID; field 1 is UnixFS, whose field 2 is data.
        if number == 2 and isinstance(cid := fields.get(1), bytes):
            links.append(parse_cid_bytes(cid))
        elif number != 1 or fields.get(2):
            raise GetError("a file node carries something else than links")
    if not links:
        raise GetError("a file node links to nothing")
    return links


class Download:
    """One file from one gateway, in blocks, within the size that the committee named."""

    def __init__(self, gateway: str, size_bytes: int) -> None:
        self._gateway = gateway
        self._left_bytes = size_bytes
        # A tree of empty leaves has no bytes to count, so the requests are counted too.
        self._left_blocks = 64 + 2 * size_bytes // CHUNK_BYTES

    def file(self, codec: int, digest: bytes, depth: int = 0) -> bytes:
        """The file under one CID; raises `GetError` at the first wrong, missing or superfluous block."""
        block = self._block(codec, digest)
        if codec == RAW:
            self._left_bytes -= len(block)
            if self._left_bytes < 0:
                raise GetError("the file is larger than claimed")
            return block
        if depth >= MAX_DEPTH:
            raise GetError("the file's tree is too deep")
        return b"".join(self.file(*child, depth + 1) for child in children(block))

    def _block(self, codec: int, digest: bytes) -> bytes:
        self._left_blocks -= 1
        if self._left_blocks < 0:
            raise GetError("the file has more blocks than its size needs")
        url = f"{self._gateway}/ipfs/{cid_text(codec, digest)}"
        status, block = _download(url, {"format": "raw"}, MAX_BLOCK_BYTES)
        if status != 200:
            raise GetError(f"{url} answers {status}")
        if hashlib.sha256(block).digest() != digest:
            raise GetError(f"{url} sends other bytes than its CID names")
        return block


def fetch_model(answer: dict[str, Any]) -> bytes:
    """The model file from the first link that gives it whole; its SHA-256 is the MID.

    Raises:
        GetError: no link does; says what each of them did.
    """
    failures = []
    for link in answer["links"]:
        gateway, _, cid = link.rpartition("/ipfs/")
        try:
            model = Download(gateway, int(answer["sizeBytes"])).file(*parse_cid(cid))
        except (GetError, requests.RequestException) as reason:
            failures.append(f"{link}: {reason}")
            continue
        if "0x" + hashlib.sha256(model).hexdigest() == answer["mid"]:
            return model
        failures.append(f"{link} is another file than the winner's")
    raise GetError(f"the model is not to be had: {'; '.join(failures) or 'it has no link'}")


# The command line ----------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    if path.is_dir():
        raise GetError(f"{path} is a folder: name a file in it with -o")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)


def oid_of(text: str) -> str:
    """An OID in its one form."""
    digits = text.lower().removeprefix("0x")
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise argparse.ArgumentTypeError("an OID is 0x and 64 hex digits")
    return "0x" + digits


def address_of(text: str) -> str:
    """A checksummed address."""
    if not Web3.is_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address")
    return Web3.to_checksum_address(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python scripts/get.py", description=__doc__.splitlines()[0])
    parser.add_argument("oid", type=oid_of, help="the order")
    parser.add_argument("--rpc", required=True, help="a node of the chain")
    parser.add_argument("--orders", required=True, type=address_of, help="the OrderBook contract")
    parser.add_argument("-o", "--output", required=True, type=Path, help="where to write the model")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Fetch one model; 0 if it was written."""
    options = parse(arguments)
    try:
        answer = ask_committee(committee_apis(options.rpc, options.orders), options.oid)
        model = fetch_model(answer)
        write(options.output, model)
    except (GetError, Web3Exception, requests.RequestException, OSError, ValueError) as reason:
        print(f"get: {' '.join(str(reason).split())}", file=sys.stderr)
        return 1
    found = "0x" + hashlib.sha256(model).hexdigest()
    facts = {name: answer[name] for name in ("oid", "mid", "winner", "score")}
    print(json.dumps(facts | {"sha256": found, "path": str(options.output)}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
