"""One model trained by several processes and devices: the same dispatch everywhere, the batch dealt out.

Parameters and samples are replicated over a mesh with the axis ``data``; each device works on its share of
every batch, and XLA adds up the gradients. Guarantees: a step draws the same batch and the same random
numbers as one device alone would, so that the outcome is the same up to the order in which floats are added;
the leader (process 0) alone decides how many steps a dispatch has, at what rate, and when to end; what it
trains from is what all train from, and processes whose task, data or recipe differ refuse each other before
the first step.

A process that dies or hangs leaves the others in a collective for good: whoever starts the processes watches
them (`offchain.provider.pool`).

Source: design section 8 (``jax.distributed`` and named sharding); data parallelism as in Flax's examples.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from offchain.data import Fragment
from offchain.models.artifact import check_tensors
from offchain.models.network import from_tensors
from offchain.training import step
from offchain.training.task import TrainingConfig, TrainingTask, deal, fingerprint, shift_of
from protocol.crypto import sha256
from protocol.errors import ProtocolError

INITIALISATION_TIMEOUT_S: Final = 60
"""How long the processes of a team wait for each other to appear."""
HEARTBEAT_TIMEOUT_S: Final = 20
"""After such a silence a process is dead to the others, which then end: a net below the supervisor's."""

Tree = TypeVar("Tree")


class TeamMismatch(ProtocolError):
    """Processes that were to train one model together have not the same task, data or recipe."""


class Command(NamedTuple):
    """What the leader has all processes do next."""

    steps: int
    """Steps of the dispatch; 0 ends the training."""
    rate: float
    """Factor of the learning rate; float32 goes over the wire."""
    trial: bool = False
    """Whether the outcome is dropped: a dispatch that only compiles and measures."""


END: Final = Command(0, 0.0)


def join(coordinator: str, processes: int, process: int) -> Team:
    """Become one of several processes that train together. Once in a process's life, before JAX is used.

    Args:
        coordinator: ``host:port`` at which process 0 serves. processes: how many. process: which, from 0.
    """
    # Without it XLA's CPU backend knows no collectives; other platforms have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        initialization_timeout=INITIALISATION_TIMEOUT_S,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        # All interfaces would be the default.
        coordinator_bind_address=coordinator if process == 0 else None,
    )
    return Team()


class Team:
    """All devices of all processes, as a mesh with the one axis ``data``."""

    def __init__(self) -> None:
        self.mesh = Mesh(np.array(jax.devices()), ("data",))
        self.leads = jax.process_index() == 0
        self._several = jax.process_count() > 1

    def batch_size(self, wanted: int) -> int:
        """``wanted`` rounded up so that each device gets an equal share."""
        return -(-wanted // self.mesh.size) * self.mesh.size

    def devices_per_process(self) -> list[int]:
        """How many devices each process brings, by process."""
        owners = [device.process_index for device in self.mesh.devices.flat]
        return [owners.count(process) for process in range(jax.process_count())]

    def place(self, tree: Any) -> Any:
        """Values that all processes hold alike, replicated over the mesh."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())

        def put(value: Any) -> jax.Array:
            own = np.asarray(value)
            return jax.make_array_from_callback(own.shape, everywhere, lambda index: own[index])

        return jax.tree.map(put, tree)

    def leaders(self, tree: Tree) -> Tree:
        """The leader's values, for all processes; of the others only shapes and types count."""
        return multihost_utils.broadcast_one_to_all(tree) if self._several else tree

    def tell(self, command: Command) -> None:
        """As the leader: have every process do this."""
        self._pass_on(command)

    def hear(self) -> Command:
        """As a follower: what the leader tells next; waits for it."""
        return self._pass_on(END)

    def _pass_on(self, command: Command) -> Command:
        rate = np.float32(command.rate).view(np.int32)
        steps, bits, trial = self.leaders(np.array([command.steps, rate, command.trial], np.int32))
        return Command(int(steps), float(np.int32(bits).view(np.float32)), bool(trial))

    def require_one_run(self, digest: bytes) -> None:
        """Raise `TeamMismatch` in every process unless all have the same digest."""
        if not self._several:
            return
        digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
        different = [process for process, other in enumerate(digests) if (other != digests[0]).any()]
        if different:
            raise TeamMismatch(
                f"processes {different} of the team have another task, data or configuration than process 0: "
                "let all members run the same version"
            )


class Stepping:
    """The compiled dispatch with its state and samples on the devices; alone, or in step with a team.

    ``state`` is None until `begin`.

    Raises:
        InvalidArtifact: the initial parameters are not the architecture's.
        TeamMismatch: the team's processes do not mean the same run.
    """

    state: step.State

    def __init__(
        self, task: TrainingTask, config: TrainingConfig, training: Fragment, team: Team | None
    ) -> None:
        recipe = config.recipe(shift_of(training))
        if team is not None:
            # Another JAX would compile another program, whose collectives might not fit.
            team.require_one_run(sha256(fingerprint(task, config) + jax.__version__.encode()))
            recipe = recipe._replace(batch_size=team.batch_size(recipe.batch_size))
        initial = None
        if task.initial is not None:
            initial = from_tensors(check_tensors(task.initial, task.architecture))
        self.batch_size = recipe.batch_size
        self._team = team
        self._key = jax.random.key(config.seed)
        if team is None:
            self._data = step.on_device(training)
            self._dispatch = step.compiled(task.architecture, recipe)
        else:
            self._data = step.Data(*team.place((training.x, training.y)))
            self._dispatch = step.compiled(task.architecture, recipe, team.mesh)
        self.fresh = step.start(task.architecture, recipe, config.seed, initial)

    def begin(self, restored: step.State | None) -> None:
        """Start from ``restored``, or anew; in a team from what the leader starts from."""
        state = self.fresh if restored is None else restored
        if self._team is None:
            self.state = jax.tree.map(jnp.asarray, state)
        else:
            self.state = self._team.place(self._team.leaders(state))
        del self.fresh

    def run(self, steps: int, rate: float) -> jax.Array:
        """Do so many steps; their mean loss, perhaps still being computed."""
        return self._lead(Command(steps, rate))

    def trial(self) -> None:
        """One step whose outcome is dropped, to its end."""
        jax.block_until_ready(self._lead(Command(1, 1.0, trial=True)))

    def end(self) -> None:
        """Send the followers home."""
        if self._team is not None:
            self._team.tell(END)

    def device_bytes(self) -> int | None:
        """Memory in use on this process's first device; None where the platform does not tell."""
        statistics = self.state.step.addressable_shards[0].device.memory_stats()
        return None if statistics is None else statistics.get("bytes_in_use")

    def _lead(self, command: Command) -> jax.Array:
        if self._team is not None:
            self._team.tell(command)
        return self.obey(command)

    def obey(self, command: Command) -> jax.Array:
        """Do as told; the mean loss of the steps."""
        # A dispatch consumes its state.
        state = jax.tree.map(jnp.copy, self.state) if command.trial else self.state
        after, loss = self._dispatch(
            state, self._data, self._key, np.int32(command.steps), np.float32(command.rate)
        )
        if not command.trial:
            self.state = after
        return loss


def follow(task: TrainingTask, config: TrainingConfig, team: Team) -> int:
    """Take part in a training as any but process 0, until the leader ends it; the step it ended at.

    ``config`` is the leader's.

    Raises:
        InvalidArtifact: the fragments or initial parameters do not fit the task.
        TeamMismatch: the leader trains something else.
    """
    training, _ = deal(task, config)
    stepping = Stepping(task, config, training, team)
    stepping.begin(None)
    while (command := team.hear()).steps:
        # One dispatch at a time: the leader waits for each, so a follower must not run ahead either.
        jax.block_until_ready(stepping.obey(command))
    return int(stepping.state.step)
