"""numba functions on the threads of PyTorch's own operations: a second pool would fight with the first.

OpenMP's threads go on spinning for milliseconds after an operation, each on its core, in case another one
follows; threads from elsewhere get what is left. So the work is handed to the same runtime, by the entry that
compilers make of `#pragma omp parallel`.
What was compiled is kept until the file of the function itself changes: who changes this one empties caches.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

ADDRESS, INT, LONG = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
intrinsic: Any = extending.intrinsic


def available() -> bool:
    """Whether this process has loaded a runtime with GNU's entry: GNU's own, LLVM's and Intel's have it."""
    loaded = ctypes.CDLL(None)
    return all(hasattr(loaded, name) for name in ("GOMP_parallel", "omp_get_thread_num"))


@intrinsic
def team(typing: Any, work: Any, threads: Any, arguments: Any) -> Any:
    """work(*arguments, k, count) on each of `count` threads, k from 0: as many as `threads`, or fewer.

    For compiled functions. `work` is one, too, gives nothing and raises nothing.
    """
    taken = (*arguments.types, types.intp, types.intp)
    work.get_call_type(typing, taken, {})
    compiled = work.dispatcher.overloads[taken]

    def generate(context: Any, builder: Any, _: Any, values: Any) -> None:
        parts = [builder.extract_value(values[2], i) for i in range(len(arguments.types))]
        layout = ir.LiteralStructType([part.type for part in parts])
        shared = cgutils.alloca_once(builder, layout)
        for i, part in enumerate(parts):
            builder.store(part, cgutils.gep_inbounds(builder, shared, 0, i))
        context.active_code_library.add_linking_library(compiled.library)
        target = context.declare_function(builder.module, compiled.fndesc)
        share = _share(context, builder.module, layout, target, taken)
        start = _external(builder.module, "GOMP_parallel", ir.VoidType(), [ADDRESS, ADDRESS, INT, INT])
        given = builder.bitcast(share, ADDRESS), builder.bitcast(shared, ADDRESS)
        builder.call(start, [*given, builder.trunc(values[1], INT), INT(0)])

    return types.void(work, types.intp, arguments), generate


def _share(context: Any, module: Any, layout: Any, target: Any, taken: Any) -> Any:
    """void f(void *): what one thread does with the arguments that lie there."""
    kind = ir.FunctionType(ir.VoidType(), [ADDRESS])
    function = ir.Function(module, kind, module.get_unique_name("share"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    shared = builder.bitcast(function.args[0], layout.as_pointer())
    parts = [builder.load(cgutils.gep_inbounds(builder, shared, 0, i)) for i in range(len(layout.elements))]
    for name in ("omp_get_thread_num", "omp_get_num_threads"):
        number = builder.call(_external(module, name, INT, []), [])
        parts.append(builder.sext(number, LONG))
    context.call_conv.call_function(builder, target, types.none, taken, parts)
    builder.ret_void()
    return function


def _external(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)
