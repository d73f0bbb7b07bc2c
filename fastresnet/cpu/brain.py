"""LLVM's 16-bit brain float, which llvmlite has no name for."""

from llvmlite import ir


class BFloat(ir.types.Type):  # type: ignore[misc]
    """As LLVM writes it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)
