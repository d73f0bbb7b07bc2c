"""Brain floats, bf16: LLVM's 16-bit type, which llvmlite has no name for, and one from fp32 and back.

What was compiled is kept until the file of the function itself changes: who changes this one empties caches.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types

WORD, FLOAT = ir.IntType(32), ir.FloatType()
intrinsic: Any = extending.intrinsic


class BFloat(ir.types.Type):
    """As LLVM writes it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


@intrinsic
def wide(_: Any, stored: Any) -> Any:
    """What is stored, as fp32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if stored == types.float32:
            return values[0]
        return builder.bitcast(builder.shl(builder.zext(values[0], WORD), WORD(16)), FLOAT)

    return types.float32(stored), generate


@intrinsic
def narrow(_: Any, value: Any, stored: Any) -> Any:
    """fp32 as `stored` is kept; bf16 is rounded to the nearest, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if stored == types.float32:
            return values[0]
        bits = builder.bitcast(values[0], WORD)
        odd = builder.and_(builder.lshr(bits, WORD(16)), WORD(1))
        rounded = builder.add(builder.add(bits, WORD(0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, WORD(16)), ir.IntType(16))

    return stored(types.float32, stored), generate
