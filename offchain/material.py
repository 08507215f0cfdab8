"""What an order is made of, fetched and checked: its task document, its fragments, its models.

Guarantee: nothing returned from here was used before its hash matched what the order, the task document or
the claim committed to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from offchain.data import Fragment, decode_fragment, form_of
from offchain.models.artifact import Tensors, decode_model, model_size_bound
from offchain.storage import InvalidCid, Unavailable, fetch, parse_link, probe
from protocol.crypto import sha256
from protocol.errors import InvalidDocument
from protocol.task import MAX_DOCUMENT_BYTES, TaskDocument, read_task, test_indices, train_indices

Json = dict[str, Any]

MAX_GATEWAYS: Final = 8
SAMPLE_TIMEOUT_S: Final = 3.0
"""How long a sample may take per block; what is slower is asked for as a whole, with more patience."""


def unhex(text: str) -> bytes:
    """Bytes of a 0x-hex string that an aggregator sent."""
    return bytes.fromhex(text[2:])


def fetch_task(order: Json) -> TaskDocument:
    """The task document of an order (its ``order`` part in API form).

    Raises:
        Unavailable: no source gives it. InvalidDocument: it is not the one committed to, or malformed.
    """
    try:
        gateway, cid = parse_link(order["taskLink"])
    except InvalidCid as reason:
        raise InvalidDocument(f"the order's task link is no link: {reason}") from reason
    data = fetch(cid, [gateway], max_bytes=MAX_DOCUMENT_BYTES)
    if sha256(data) != unhex(order["taskHash"]):
        raise InvalidDocument("the task document is not the one the order committed to")
    task = read_task(data)
    if task.canonical() != data:
        raise InvalidDocument("the task document is not in canonical form")
    return task


def fetch_fragment_files(task: TaskDocument, indices: Sequence[int], gateways: Sequence[str]) -> list[bytes]:
    """Files of fragments, each checked against its committed hash.

    Raises:
        Unavailable: a fragment cannot be had. InvalidDocument: its CID names another file than its hash.
    """
    files = []
    for index in indices:
        reference = task.data.fragments[index]
        _, cid = parse_link(f"http://fragment/ipfs/{reference.cid}")
        data = fetch(cid, gateways, max_bytes=reference.size_bytes)
        if sha256(data) != reference.digest:
            raise InvalidDocument(f"fragment {index} is not the one the task committed to")
        files.append(data)
    return files


def read_fragments(task: TaskDocument, files: Sequence[bytes]) -> list[Fragment]:
    """Fragments from their files; raises `InvalidArtifact` for one that is not what it must be."""
    form = form_of(task.architecture, task.data.classes)
    return [decode_fragment(data, form) for data in files]


def fetch_training(task: TaskDocument, block_hash: bytes) -> list[Fragment]:
    """The training fragments of an order whose block has ``block_hash``."""
    indices = train_indices(task.data, block_hash)
    return read_fragments(task, fetch_fragment_files(task, indices, task.data.gateways))


def fetch_initial(task: TaskDocument) -> Tensors | None:
    """The parameters that training starts from (PoT ``M_C``); none if the task names none.

    Raises:
        Unavailable: no gateway gives them. InvalidDocument: they are not those that the task committed to.
        InvalidArtifact: they are not the architecture's.
    """
    reference = task.initial_parameters
    if reference is None:
        return None
    _, cid = parse_link(f"http://initial/ipfs/{reference.cid}")
    data = fetch(cid, task.data.gateways, max_bytes=model_size_bound(task.architecture))
    if sha256(data) != unhex(reference.sha256):
        raise InvalidDocument("the initial parameters are not those the task committed to")
    return decode_model(data, task.architecture)


def fetch_test(task: TaskDocument, block_hash: bytes, gateways: Sequence[str]) -> list[bytes]:
    """Files of the test fragments, once released; raises what `fetch_fragment_files` does."""
    chosen = [*gateways, *task.data.gateways][:MAX_GATEWAYS]
    return fetch_fragment_files(task, test_indices(task.data, block_hash), chosen)


def probe_test(
    task: TaskDocument, block_hash: bytes, gateways: Sequence[str], choose: Callable[[int], int]
) -> None:
    """One random block of one test fragment, from the sources of `fetch_test`; raises `Unavailable`."""
    indices = test_indices(task.data, block_hash)
    reference = task.data.fragments[indices[choose(len(indices))]]
    _, cid = parse_link(f"http://fragment/ipfs/{reference.cid}")
    probe(cid, [*gateways, *task.data.gateways][:MAX_GATEWAYS], choose, timeout_s=SAMPLE_TIMEOUT_S)


def probe_model(claim: Json, choose: Callable[[int], int]) -> None:
    """One random block of a revealed model, from one of its links; raises `Unavailable`, `InvalidCid`."""
    links = claim["links"][:MAX_GATEWAYS]
    gateway, cid = parse_link(links[choose(len(links))])
    probe(cid, [gateway], choose, timeout_s=SAMPLE_TIMEOUT_S)


def fetch_model(claim: Json, task: TaskDocument) -> bytes:
    """A revealed model's file, whose SHA-256 is the claim's MID.

    Raises:
        Unavailable: no link gives bytes with that hash.
    """
    bound = model_size_bound(task.architecture)
    failures = []
    for link in claim["links"][:MAX_GATEWAYS]:
        try:
            gateway, cid = parse_link(link)
            data = fetch(cid, [gateway], max_bytes=max(bound, 1024 * 1024))
        except (InvalidCid, Unavailable) as reason:
            failures.append(str(reason))
            continue
        if sha256(data) == unhex(claim["mid"]):
            return data
        failures.append(f"{link} is another file than the claim's MID")
    raise Unavailable(f"model {claim['mid']} is not to be had: {'; '.join(failures) or 'no link'}")
