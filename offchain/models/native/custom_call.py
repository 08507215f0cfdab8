"""Machine code of our own as an operation of XLA's on this host's CPU.

A kernel is written in LLVM's language for the sizes at hand, compiled for the processor at hand, and called
by XLA as one operation, over XLA's own threads (``custom_call.ll``). Guarantees: what is computed depends on
the operands alone, not on the number of threads. Whether a host can do this is asked in ``processor.py``.

Source: design section 8; XLA's typed FFI, https://docs.jax.dev/en/latest/ffi.html.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp

from offchain.models.native.loops import Loops

_HANDLER: Final = Path(__file__).with_name("custom_call.ll")
_BODY: Final = "define internal void @body(i64 %chunk, ptr noalias %a, ptr noalias %b, ptr noalias %result)"
_CALLED_AS: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

_kept: Final[dict[str, Any]] = {}
"""Engines, which own the machine code, by the operation's name: XLA never forgets an operation."""
_keeping: Final = threading.Lock()


def call(
    name: str, lanes: int, chunks: int, write: Callable[[Loops], None], shape: tuple[int, ...]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A kernel of two operands as a function that JAX can trace. All numbers are float32.

    Args:
        name: with the number of lanes, says all that the kernel depends on: programs that call it are kept on
            disk under this name, and a later process compiles the kernel that it finds there anew.
        lanes: floats in the kernel's vectors.
        chunks: the kernel runs for each ``%chunk`` below, in any order, several at once.
        write: writes what one chunk does with ``%a``, ``%b`` and ``%result``.
        shape: of the result.
    """
    name = f"{name}_{lanes}"
    with _keeping:
        if name not in _kept:
            loops = Loops(lanes)
            write(loops)
            engine = _compiled(f"@chunks = internal constant i64 {chunks}\n{loops.text(_BODY)}")
            handler = _CALLED_AS(engine.get_function_address("handler"))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
            _kept[name] = engine
    return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(shape, jnp.float32))


def _compiled(body: str) -> Any:
    """The engine that holds the handler of such a body."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(body + _HANDLER.read_text(encoding="utf-8"), llvm.create_context())
    module.verify()
    target = _target()
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    code = llvm.ObjectFileRef.from_data(target.emit_object(module))
    # An engine keeps its module and its target with all that they know, a megabyte; these know nothing.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly("", llvm.create_context()), _target())
    engine.add_object_file(code)
    engine.finalize_object()
    return engine


def _target() -> Any:
    """What compiles for this very processor."""
    import llvmlite.binding as llvm

    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
