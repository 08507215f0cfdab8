"""The body of a kernel in LLVM's language, written loop by loop: as much of it as sums of products need.

A value is its LLVM text: the name of a result (``%v7``) or a number (``12``). What is kept in a `Cell` over a
loop ends in a register, as LLVM's front ends have it (``mem2reg``).

Source: https://llvm.org/docs/LangRef.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

Value = str | int


class Cell:
    """A local variable."""

    def __init__(self, loops: Loops, kind: str, start: Value) -> None:
        self._loops, self._kind = loops, kind
        self._pointer = loops.local(kind)
        self.set(start)

    def get(self) -> str:
        """What it holds now."""
        return self._loops.value(f"load {self._kind}, ptr {self._pointer}")

    def set(self, value: Value) -> None:
        """Hold this from now on."""
        self._loops.do(f"store {self._kind} {value}, ptr {self._pointer}")


class Loops:
    """The body of one function that returns nothing. Integers are i64, numbers float."""

    def __init__(self, lanes: int) -> None:
        """
        Args:
            lanes: floats in a vector.
        """
        self.lanes = lanes
        self._vector = f"<{lanes} x float>"
        self._names = count()
        self._locals: list[str] = []
        self._lines: list[str] = []

    def text(self, header: str) -> str:
        """The whole function."""
        return "\n".join([f"{header} {{", "entry:", *self._locals, *self._lines, "ret void", "}", ""])

    def do(self, instruction: str) -> None:
        """An instruction without a result."""
        self._lines.append(instruction)

    def value(self, instruction: str) -> str:
        """An instruction's result."""
        name = f"%v{next(self._names)}"
        self._lines.append(f"{name} = {instruction}")
        return name

    def local(self, kind: str) -> str:
        """The address of a new local variable."""
        name = f"%v{next(self._names)}"
        self._locals.append(f"{name} = alloca {kind}")
        return name

    @contextmanager
    def counted(self, times: Value) -> Iterator[str]:
        """``for index in range(times)``, at least once."""
        label = f"loop{next(self._names)}"
        index = Cell(self, "i64", 0)
        self.do(f"br label %{label}")
        self.do(f"{label}:")
        now = index.get()
        yield now
        following = self.sum(now, 1)
        index.set(following)
        more = self.value(f"icmp ult i64 {following}, {times}")
        self.do(f"br i1 {more}, label %{label}, label %{label}.after")
        self.do(f"{label}.after:")

    def sum(self, first: Value, *others: Value) -> Value:
        """Of integers."""
        for other in others:
            first = self.value(f"add i64 {first}, {other}")
        return first

    def product(self, a: Value, b: Value) -> Value:
        """Of integers."""
        return self.value(f"mul i64 {a}, {b}")

    def difference(self, a: Value, b: Value) -> Value:
        """Of integers."""
        return self.value(f"sub i64 {a}, {b}")

    def least(self, a: Value, b: Value) -> Value:
        """Of integers."""
        return self.value(f"call i64 @llvm.umin.i64(i64 {a}, i64 {b})")

    def select(self, condition: str, a: Value, b: Value) -> Value:
        """One of two integers."""
        return self.value(f"select i1 {condition}, i64 {a}, i64 {b}")

    def place(self, sizes: Sequence[int], *indices: Value) -> Value:
        """Where an element lies in a row-major array of such ``sizes``; indices that are missing are zero."""
        place: Value = 0
        for size, index in zip(sizes, [*indices, *[0] * (len(sizes) - len(indices))], strict=True):
            place = self.sum(self.product(place, size), index)
        return place

    def at(self, pointer: str, place: Value) -> str:
        """The address of the number so many numbers on."""
        return self.value(f"getelementptr float, ptr {pointer}, i64 {place}")

    def load(self, pointer: str) -> str:
        """A vector from anywhere."""
        return self.value(f"load {self._vector}, ptr {pointer}, align 4")

    def store(self, vector: str, pointer: str) -> None:
        """A vector to anywhere."""
        self.do(f"store {self._vector} {vector}, ptr {pointer}, align 4")

    def spread(self, pointer: str) -> str:
        """One number in every lane."""
        number = self.value(f"load float, ptr {pointer}")
        first = self.value(f"insertelement {self._vector} poison, float {number}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.value(f"shufflevector {self._vector} {first}, {self._vector} poison, {zeros}")

    def vectors(self, start: str = "zeroinitializer") -> Cell:
        """A variable that holds a vector."""
        return Cell(self, self._vector, start)

    def add_products(self, totals: Sequence[Cell], a: str, factors: Sequence[str]) -> None:
        """``totals += a * factors``, vector by vector, in one instruction each where the processor has it."""
        for total, b in zip(totals, factors, strict=True):
            product = self.value(f"fmul contract {self._vector} {a}, {b}")
            total.set(self.value(f"fadd contract {self._vector} {total.get()}, {product}"))

    def store_rows(self, rows: Sequence[Sequence[Cell]], pointer: str, width: int) -> None:
        """Vectors side by side in each row, of rows that lie so many numbers apart."""
        for number, cells in enumerate(rows):
            for vector, cell in enumerate(cells):
                self.store(cell.get(), self.at(pointer, number * width + vector * self.lanes))
