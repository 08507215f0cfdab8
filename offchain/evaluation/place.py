"""On which device exact scores are computed.

Guarantees: the device's float64 is the processor's own, as the proofs of ``bounds.py`` take for granted. A
TPU makes float64 of pairs of float32, which hold fewer bits, and does not compile their bit patterns
(jax-ml/jax#21108): beside one, the host's CPU scores.

Source: design section 7 ("each backend may compute it its own way"); docs/validation.md, "Containers".
"""

from __future__ import annotations

import jax

from protocol.errors import ProtocolError


class NowhereToScore(ProtocolError):
    """JAX was told to use nothing but a device that cannot score; says what to tell it."""


def on_cpu() -> bool:
    """Whether scores are computed on a CPU: of the whole process, so that no thread traces for another."""
    return jax.default_backend() != "gpu"


def device() -> jax.Device | None:
    """The calling thread's own device, None where it has none; beside a TPU, a CPU.

    Raises:
        NowhereToScore: there is a TPU, and JAX may not use the CPU beside it.
    """
    if jax.default_backend() in ("cpu", "gpu"):
        own: jax.Device | None = jax.config.jax_default_device  # type: ignore[attr-defined]
        return own
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        accelerator = jax.default_backend()
        raise NowhereToScore(
            f"a {accelerator} has no float64 of its own: set JAX_PLATFORMS={accelerator},cpu"
        ) from error
