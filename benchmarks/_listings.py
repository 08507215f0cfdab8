"""What a listing of a compiled program says of its products: from which types, into which, and how exactly.

Guarantees: what is not known is named as such, never left out.

Source: NVIDIA's PTX ISA ("mma", "wgmma", "fma", modifiers .approx, .full, .ftz); XLA's text format (HLO).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

_MMA: Final = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async)\.[\w.]*?\.m\d+n\d+k\d+((?:\.\w+)+)")
_SHAPE_WORDS: Final = frozenset({"row", "col", "satfinite", "sync", "aligned"})
_APPROXIMATE: Final = re.compile(r"\b[a-z0-9]+(?:\.\w+)*\.(?:approx|full|ftz)(?:\.\w+)*")
_EXACT_OPERANDS: Final = frozenset({"s8", "u8", "f64"})
"""Operands of tensor cores that lose nothing of an integer that is in them."""
_DEFINED: Final = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = \(?(\w+)\[", re.MULTILINE)
_LIBRARY: Final = re.compile(
    r"= \(?(\w+)\[[^=]*? custom-call\(%([\w.-]+)[^)]*\).*?custom_call_target=\"(__cu[^\"]*)\"(.*)"
)
_CALLED: Final = re.compile(r"custom_call_target=\"([^\"]*)\"")
_CONVOLVED: Final = re.compile(r"= \(?(\w+)\[[^=]*? (?:convolution|dot)\(%([\w.-]+)")
_HIGHEST: Final = '"operand_precision":["HIGHEST","HIGHEST"]'


def tensor_core_products(ptx: str) -> Counter[str]:
    """Instructions of tensor cores, as ``bf16 into f32``."""
    found: Counter[str] = Counter()
    for match in _MMA.finditer(ptx):
        types = [word for word in match[1].strip(".").split(".") if word not in _SHAPE_WORDS]
        found[f"{types[1] if len(types) > 1 else types[0]} into {types[0]}"] += 1
    return found


def library_products(hlo: str) -> Counter[str]:
    """Products that NVIDIA's libraries compute, as ``bf16 into f32 (__cublas$gemm)``."""
    types = dict(_DEFINED.findall(hlo))
    return Counter(
        f"{types.get(first, 'unknown')} into {result} ({target})"
        for result, first, target, _ in _LIBRARY.findall(hlo)
    )


def matrix_products(hlo: str) -> Counter[str]:
    """Products that stand in the program as such, as ``bf16 into f32``."""
    types = dict(_DEFINED.findall(hlo))
    return Counter(
        f"{types.get(first, 'unknown')} into {result}" for result, first in _CONVOLVED.findall(hlo)
    )


def inexact(hlo: str, ptx: str) -> list[str]:
    """What in a program need not give the same integer as another machine; nothing in one that is exact.

    Approximate instructions; tensor cores that take in floats of fewer bits; convolutions of a library, which
    may transform (Winograd, FFT); products of floats for which a library may choose fewer bits.
    """
    found = [match[0] for match in _APPROXIMATE.finditer(ptx)]
    found += [f"tensor cores: {name}" for name in _not_exact(tensor_core_products(ptx))]
    for result, _, target, rest in _LIBRARY.findall(hlo):
        if "conv" in target:
            found.append(f"a library's convolution: {target}")
        elif result not in ("s32", "f64") and _HIGHEST not in rest:
            found.append(f"{target} of lower precision into {result}")
    found += [f"not known: {name}" for name in _CALLED.findall(hlo) if not name.startswith("__cu")]
    return sorted(set(found))


def _not_exact(products: Iterable[str]) -> list[str]:
    return [name for name in products if name.split()[0] not in _EXACT_OPERANDS]
