"""What an accelerator that is not here would run: compiled by its own compiler, and looked at.

    python -m benchmarks.ahead_of_time [--target h200|rtx4090|v5e …] [--batch 256] [--json]

XLA compiles for a GPU or TPU that the machine does not have. In an environment of its own:

    pip install -e '.[train]' 'jax[cuda12]>=0.10'        # for GPUs; no driver
    pip install -e '.[train]' 'jax[tpu]'                 # for TPUs

For each family the training step's memory as the compiler states it, against the estimate by which a provider
takes an order, and its products by the types that they take in and put out. For a GPU all programs of the
exactness suite in each container too: what of them is not exact, which must be nothing (the exit status says
so; ordinary float32 programs come first, in which something must be found), and the most that one takes of
what the memory bound allows. Nothing is measured: how fast it is only the
device shows. Without a target it takes those whose compiler is installed. Tiles are not tuned (that takes a
device), which changes no type.

Source: design sections 7 and 8; docs/validation.md, "Comparing machines"; docs/training.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks._listings import inexact, library_products, matrix_products, tensor_core_products
from benchmarks.reference_gpt import CONTEXT, GPT
from benchmarks.training import FAMILIES, samples_for
from offchain.data import Fragment
from offchain.evaluation import conformance, exact_jax
from offchain.evaluation.arithmetic_jax import Traced, x64
from offchain.evaluation.bounds import Container, Way
from offchain.evaluation.memory import model_bytes, sample_bytes
from offchain.evaluation.specification import prepare
from offchain.models.estimate import estimate
from offchain.training import step
from offchain.training.engine import TrainingConfig
from protocol.architecture import Architecture

CONTAINERS: Final[tuple[Container, ...]] = ("float32", "float64", "int8")
OLDEST_FOR_GPUS: Final = (0, 10)
_ENDS: Final = ("_after_optimizations.txt", ".ptx")
"""Of the files in which XLA leaves a program's listings."""


class Gpu(NamedTuple):
    """What XLA wants to know of a GPU, from its maker's data sheet and CUDA's table of capabilities."""

    name: str
    capability: tuple[int, int]
    processors: int
    memory_bytes: int
    bandwidth_bytes_s: int
    cache_bytes: int
    clock_ghz: float
    shared_bytes: int
    """Per processor; a block may have 1 KiB less."""
    threads: int
    """Per processor."""

    def text(self) -> str:
        """As XLA's ``GpuTargetConfigProto``."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {self.threads}
              shared_memory_per_block: 49152 shared_memory_per_core: {self.shared_bytes}
              shared_memory_per_block_optin: {self.shared_bytes - 1024}
              core_count: {self.processors} fpus_per_core: 128 clock_rate_ghz: {self.clock_ghz}
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              memory_bandwidth: {self.bandwidth_bytes_s} device_memory_size: {self.memory_bytes}
              l2_cache_size: {self.cache_bytes}
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              cuda_compute_capability {{ major: {major} minor: {minor} }}
            }}
            platform_name: "CUDA" device_description_str: "{self.name}"
            dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 8 }}
        """


GPUS: Final = {
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 151_397_597_184, 4_800 * 10**9, 50 << 20, 1.98, 228 << 10, 2048),
    "rtx4090": Gpu(
        "NVIDIA GeForce RTX 4090", (8, 9), 128, 24 << 30, 1_008 * 10**9, 72 << 20, 2.52, 100 << 10, 1536
    ),
}
TPUS: Final = {"v5e": "v5e:2x2"}


def installed() -> list[str]:
    """Targets whose compiler is here."""
    gpu = any(importlib.util.find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin"))
    return [*(GPUS if gpu else ()), *(TPUS if importlib.util.find_spec("libtpu") else ())]


def prepare_compiler(dump: Path) -> None:
    """What the compilers read when they are first used."""
    # Level 0 tunes nothing: that would take a device.
    flags = f"--xla_gpu_autotune_level=0 --xla_dump_to={dump} --xla_dump_hlo_as_text"
    if flags not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"


class Target:
    """A device that is not here, and its compiler."""

    def __init__(self, name: str, dump: Path) -> None:
        self.name, self._dump = name, dump
        if name in GPUS:
            gpu = {"target_config": GPUS[name].text(), "topology": "1x1x1"}
            found = topologies.get_topology_desc(platform="cuda", **gpu)
        else:
            found = topologies.get_topology_desc(TPUS[name], platform="tpu")
        self.platform = "gpu" if name in GPUS else "tpu"
        self._placed = NamedSharding(Mesh(np.array(found.devices[:1]), ("data",)), PartitionSpec())

    def there(self, tree: Any) -> Any:
        """Shapes and types of arrays, as arguments on the device."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._placed), tree
        )

    @contextmanager
    def pretended(self) -> Iterator[None]:
        """The project's code takes the device for its own."""
        step.compiled.cache_clear()
        exact_jax.compiled_stage.cache_clear()
        with mock.patch.object(jax, "default_backend", lambda: self.platform):
            yield

    def compiled(self, function: Any, *arguments: Any) -> tuple[Any, str, str]:
        """The program, its optimised HLO, and its PTX (empty for a TPU)."""
        shutil.rmtree(self._dump, ignore_errors=True)
        program = function.lower(*arguments).compile()
        if self.platform == "tpu":
            return program, program.as_text(), ""
        texts = ["".join(path.read_text() for path in sorted(self._dump.glob(f"*{end}"))) for end in _ENDS]
        if not texts[0]:
            raise SystemExit("XLA wrote no listing: is XLA_FLAGS set, or was the backend used before?")
        return program, texts[0], texts[1]


def training_rows(target: Target) -> Iterator[dict[str, Any]]:
    """Of each family's training step: memory, and products."""
    tokens = np.zeros((512, CONTEXT), np.int32)
    cases = {name: (each, samples_for(each)) for name, each in FAMILIES.items()}
    for name, (architecture, samples) in (cases | {"reference gpt": (GPT, Fragment(tokens, tokens))}).items():
        began_s = time.perf_counter()
        recipe = TrainingConfig().recipe()
        state = jax.eval_shape(lambda of=architecture, how=recipe: step.start(of, how, 1, None))
        data = step.Data(samples.x, samples.y)
        key, numbers = jax.eval_shape(lambda: jax.random.key(0)), (jnp.int32(1), jnp.float32(1))
        arguments = [target.there(each) for each in (state, data, key, *numbers)]
        program, hlo, ptx = target.compiled(step.compiled(architecture, recipe), *arguments)
        stated = program.memory_analysis()
        taken = (
            stated.argument_size_in_bytes + stated.temp_size_in_bytes - samples.x.nbytes - samples.y.nbytes
        )
        expected = estimate(architecture, recipe.batch_size, value_bytes=2).training_bytes
        products = matrix_products(hlo) + library_products(hlo)
        print(
            f"{target.name:8} {name:14}{taken / 1e6:10.1f} MB stated{expected / 1e6:10.1f} MB estimated"
            f"   {told(products)}; on tensor cores {told(tensor_core_products(ptx)) or 'not told'}"
        )
        yield {
            "target": target.name,
            "family": name,
            "batch_size": recipe.batch_size,
            "stated_bytes": taken,
            "estimated_bytes": expected,
            "products": dict(products),
            "tensor_cores": dict(tensor_core_products(ptx)),
            "compile_s": round(time.perf_counter() - began_s, 1),
        }


def prove_that_listings_tell(target: Target) -> None:
    """Compile what is not exact, and find it: else that nothing is found would mean nothing.

    Raises:
        SystemExit: in some it was not found.
    """
    values = target.there(jax.ShapeDtypeStruct((256, 256), jnp.float32))
    image = target.there(jax.ShapeDtypeStruct((8, 16, 16, 32), jnp.float32))
    kernel = target.there(jax.ShapeDtypeStruct((3, 3, 32, 64), jnp.float32))
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    inexact_programs = {
        "product": (jnp.matmul, values, values),
        "quotient": (jnp.divide, values, values),
        "exp": (jnp.exp, values),
        "root": (jnp.sqrt, values),
        "convolution": (convolve, image, kernel),
    }
    for name, (function, *arguments) in inexact_programs.items():
        _, hlo, ptx = target.compiled(jax.jit(function), *arguments)
        if not inexact(hlo, ptx):
            raise SystemExit(f"a float32 {name} looks exact in this XLA's listings: they cannot be relied on")


def exact_rows(target: Target, batch: int) -> Iterator[dict[str, Any]]:
    """Of the exactness suite in each container: how many programs, their products, what is not exact."""
    prove_that_listings_tell(target)
    for container in CONTAINERS:
        jax.clear_caches()  # what is compiled already gives no listing
        seen, products, wrong, most = set[Hashable](), Counter[str](), dict[str, list[str]](), 0.0
        way = Way(container, container)
        for name, architecture in conformance.models().items():
            bound = model_bytes(architecture) + batch * sample_bytes(architecture, [way])
            for function, arguments in stages(target, name, architecture, way, batch):
                # Equal stages of several models are one program.
                key = function, tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments))
                if key in seen:
                    continue
                seen.add(key)
                program, hlo, ptx = target.compiled(jax.jit(function), *arguments)
                stated = program.memory_analysis()
                taken = stated.temp_size_in_bytes + stated.output_size_in_bytes
                most = max(most, (taken + stated.argument_size_in_bytes) / bound)
                products += tensor_core_products(ptx) + library_products(hlo)
                if found := inexact(hlo, ptx):
                    wrong.setdefault(name, []).extend(found)
        print(
            f"{target.name:8} exact, {container:8}{len(seen):4} programs, inexact: {wrong or 'nothing'},"
            f" {most:.2f} of the memory bound   {told(products)}"
        )
        yield {
            "target": target.name,
            "container": container,
            "programs": len(seen),
            "products": dict(products),
            "inexact": wrong,
            "of_memory_bound": round(most, 2),
        }


def stages(
    target: Target, name: str, architecture: Architecture, way: Way, batch: int
) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The programs of one model of the suite, each with its arguments."""
    prepared = prepare(conformance.parameters(name, architecture), architecture)
    x = conformance.inputs(name, architecture, 1)
    plans = exact_jax.plan(prepared, architecture, x.dtype == np.uint8, way)
    one, own = exact_jax.quantise_fast(x), target.there(exact_jax.narrowed(prepared))
    value = target.there(Traced(*(np.repeat(np.asarray(part), batch, axis=0) for part in one)))
    named: dict[str, Any] = {}
    for stage in exact_jax.stages_of(architecture):
        function = exact_jax.compiled_stage(stage.layers, plans[stage.start : stage.stop])
        others = (named[each] for each in stage.references)
        arguments = (own[stage.start : stage.stop], value, *others)
        yield function, arguments
        value = target.there(jax.eval_shape(function, *arguments))
        if stage.name is not None:
            named[stage.name] = value


def told(products: Counter[str]) -> str:
    """The commonest first."""
    return ", ".join(f"{count} {name}" for name, count in products.most_common())


def main() -> int:
    """Compile; print a line for each, and JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--target", nargs="+", choices=(*GPUS, *TPUS), default=installed())
    parser.add_argument("--batch", type=int, default=256, help="samples in a batch of exact scoring")
    arguments = parser.parse_args()
    missing = set(arguments.target) - set(installed())
    if missing:
        parser.error(f"no compiler for {', '.join(sorted(missing))} here: see the head of this file")
    if arguments.batch < 1:
        parser.error("--batch is at least 1")
    if set(arguments.target) & set(GPUS) and jax.version.__version_info__ < OLDEST_FOR_GPUS:
        parser.error(f"JAX {jax.__version__} compiles for no GPU that is not here: 0.10 or newer does")
    training: list[dict[str, Any]] = []
    exact: list[dict[str, Any]] = []
    if not arguments.target:
        print("no compiler of an accelerator is installed here: see the head of this file")
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "listings"
        for name in arguments.target:
            prepare_compiler(dump)
            target = Target(name, dump)
            with target.pretended():
                training += training_rows(target)
            if target.platform == "gpu":  # beside a TPU the CPU scores
                with target.pretended(), x64():
                    exact += exact_rows(target, arguments.batch)
    if arguments.json:
        print(json.dumps({"jax": jax.__version__, "training": training, "exact": exact}))
    return 1 if any(row["inexact"] for row in exact) else 0


if __name__ == "__main__":
    sys.exit(main())
