"""What a listing of a program for another device says: products, and what in it is not exact."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from benchmarks import ahead_of_time
from benchmarks._listings import inexact, library_products, matrix_products, tensor_core_products

BFLOAT = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};"
BYTES = "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%r1}, {%r2}, {%r3}, {%r1};"
TENSOR_FLOAT = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f1};"
DOUBLE = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d1}, {%d2}, {%d3}, {%d1};"
WARP_GROUP = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%f1}, %rd1, %rd2, 1, 1, 1, 0, 0;"
EXACT_PTX = f"""
    {BYTES}
    {DOUBLE}
    fma.rn.f32 %f4, %f1, %f2, %f3;
    sqrt.rn.f64 %fd2, %fd1;
    div.s64 %rd3, %rd1, %rd2;
    cvt.rmi.f64.f64 %fd3, %fd2;
"""


def gemm(operands: str, result: str, precision: str = "DEFAULT", target: str = "__cublas$gemm") -> str:
    """A library's product, as XLA writes it."""
    return f"""
  %p.1 = {operands}[256,256]{{1,0}} parameter(0)
  %q = {operands}[256,256]{{1,0}} parameter(1)
  %custom-call.1 = ({result}[256,256]{{1,0}}, s8[4194304]{{0}}) custom-call(%p.1, %q), \
custom_call_target="{target}", backend_config={{"gemm_backend_config":{{"precision_config":\
{{"operand_precision":["{precision}","{precision}"],"algorithm":"ALG_UNSET"}}}}}}
"""


def test_products_of_tensor_cores_are_told_by_their_types() -> None:
    listing = "\n".join((BFLOAT, BFLOAT, BYTES, TENSOR_FLOAT, DOUBLE, WARP_GROUP))
    assert tensor_core_products(listing) == Counter(
        {"bf16 into f32": 3, "s8 into s32": 1, "tf32 into f32": 1, "f64 into f64": 1}
    )


def test_products_of_libraries_and_of_the_program_are_told_by_their_types() -> None:
    assert library_products(gemm("bf16", "f32")) == Counter({"bf16 into f32 (__cublas$gemm)": 1})
    hlo = """
  %fusion.1 = bf16[64,32]{1,0} fusion(%param_0), kind=kLoop, calls=%bitcast
  ROOT %convolution.1 = f32[64,16]{1,0:T(8,128)} convolution(%fusion.1, %fusion.2), dim_labels=bf_io->bf
"""
    assert matrix_products(hlo) == Counter({"bf16 into f32": 1}) and not library_products(hlo)


def test_what_is_exact_is_not_complained_of() -> None:
    assert not inexact("", EXACT_PTX)
    for operands, result, precision in (
        ("s8", "s32", "DEFAULT"),
        ("f64", "f64", "DEFAULT"),
        ("f32", "f32", "HIGHEST"),
    ):
        assert not inexact(gemm(operands, result, precision), "")


@pytest.mark.parametrize(
    ("hlo", "ptx", "said"),
    [
        ("", TENSOR_FLOAT, "tensor cores: tf32 into f32"),
        ("", BFLOAT, "tensor cores: bf16 into f32"),
        ("", "div.full.f32 %f3, %f1, %f2;", "div.full.f32"),
        ("", "ex2.approx.ftz.f32 %f2, %f1;", "ex2.approx.ftz.f32"),
        ("", "sqrt.approx.f32 %f2, %f1;", "sqrt.approx.f32"),
        ("", "mul.ftz.f32 %f3, %f1, %f2;", "mul.ftz.f32"),
        ('custom-call(%p), custom_call_target="other"', "", "not known: other"),
        (gemm("f32", "f32"), "", "__cublas$gemm of lower precision into f32"),
        (gemm("f32", "f32", "HIGHEST", "__cudnn$conv"), "", "a library's convolution: __cudnn$conv"),
    ],
)  # fmt: skip
def test_what_need_not_be_the_same_elsewhere_is_named(hlo: str, ptx: str, said: str) -> None:
    assert inexact(hlo, EXACT_PTX + ptx) == [said]


def test_without_a_compiler_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead_of_time, "installed", list)
    monkeypatch.setattr(sys, "argv", ["ahead_of_time", "--json"])
    assert ahead_of_time.main() == 0
    said, result = capsys.readouterr().out.splitlines()
    assert "no compiler" in said and json.loads(result)["exact"] == []
    monkeypatch.setattr(sys, "argv", ["ahead_of_time", "--target", "v5e"])
    with pytest.raises(SystemExit):
        ahead_of_time.main()
    assert "no compiler for v5e here" in capsys.readouterr().err
