"""What an order needs in order to be trained: fetched, checked, and small enough for this machine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from offchain.config import ProviderConfig
from offchain.material import fetch_initial, fetch_task, fetch_training, unhex
from offchain.models.estimate import estimate
from offchain.storage import InvalidCid, Unavailable
from protocol.architecture import parameter_count
from protocol.errors import ProtocolError
from protocol.task import NamedSplit

if TYPE_CHECKING:
    from offchain.training.task import TrainingTask

log = logging.getLogger(__name__)

Json = dict[str, Any]

FETCH_RETRY_S: Final = 1.0


class Declined(ProtocolError):
    """An order that this provider will not or cannot train; says why."""


def fetch_order(
    detail: Json,
    config: ProviderConfig,
    stopping: threading.Event,
    too_late: Callable[[], bool],
    device: Any = None,
) -> TrainingTask | None:
    """Task and training data of an order; None if they were not to be had before it was ``too_late``.

    The client publishes the data once the chain has confirmed the order, so it is asked for until then. If no
    ``device`` is named, it must fit a CPU, which takes the most memory.

    Raises:
        Declined: more than this provider trains. InvalidDocument, InvalidArtifact: not what was committed to.
    """
    from offchain.training.task import TrainingTask

    while not stopping.is_set() and not too_late():
        try:
            document = fetch_task(detail["order"])
            if isinstance(document.data.split, NamedSplit) and not config.named_splits:
                raise Declined("its client named the test fragments, and named_splits is off")
            count = parameter_count(document.architecture)
            if count > config.max_parameters:
                raise Declined(f"{count} parameters are more than this provider trains")
            value_bytes = 4 if device is None or device.platform == "cpu" else 2
            needed = estimate(document.architecture, config.batch_size, value_bytes).training_bytes
            if needed > config.max_training_bytes:
                raise Declined(f"training takes {needed} bytes by the estimate, more than this provider has")
            fragments = fetch_training(document, unhex(detail["blockHash"]))
            initial = fetch_initial(document)
        except (Unavailable, InvalidCid) as reason:
            log.debug("waiting for the data of %s: %s", detail["oid"], reason)
            stopping.wait(FETCH_RETRY_S)
            continue
        return TrainingTask(
            architecture=document.architecture,
            fragments=fragments,
            metric=document.metric,
            initial=initial,
        )
    log.warning("the data of order %s was not to be had before its deadline", detail["oid"])
    return None
