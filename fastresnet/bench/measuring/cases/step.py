"""The training step: which models, batch sizes, precisions, memory formats and compilers are compared."""

from __future__ import annotations

from fastresnet.bench.measuring.cases.variant import Variant
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case

PART = "step"
GPU_BATCHES = {"resnet18": 512, "resnet50": 256, "speednet": 2000}
CPU_BATCHES = {"resnet18": 32, "resnet50": 8, "speednet": 125}
# weight of a case's time: a compiler takes its own, and the search for the largest batch tries many
COMPILED, SEARCHING = 2.0, 1.5


def cases(context: Context) -> list[Case]:
    """The variants worth comparing on this device, the plain baseline of each model first."""
    chosen = _tiny(context) if context.tiny else _quick(context)
    if not context.tiny and context.suite != "quick":
        chosen += _standard(context)
    if not context.tiny and context.suite == "full":
        chosen += _full(context)
    return [_case(variant) for variant in chosen]


def _tiny(context: Context) -> list[Variant]:
    fast = context.fast_precision()
    return [
        Variant(context, "speednet", 8, "fp32", "contiguous"),
        Variant(context, "speednet", 8, fast),
        Variant(context, "resnet18", 4, fast, work="forward"),
    ]


def _batches(context: Context) -> dict[str, int]:
    return GPU_BATCHES if context.on_gpu else CPU_BATCHES


def _quick(context: Context) -> list[Variant]:
    fast, found = context.fast_precision(), []
    for name, batch in _batches(context).items():
        found.append(Variant(context, name, batch, "fp32", "contiguous"))
        found.append(Variant(context, name, batch, fast))
    batch = _batches(context)["resnet18"]
    return found + [
        Variant(context, "resnet18", batch, fast, work=work) for work in ("forward", "forward+backward")
    ]


def _standard(context: Context) -> list[Variant]:
    """Every number format, other batch sizes, the largest that fits, and what compiling brings on a GPU."""
    fast, gpu, found = context.fast_precision(), context.on_gpu, []
    for name, batch in _batches(context).items():
        found += [Variant(context, name, batch, fast, "contiguous")] if fast != "fp32" else []
        found += [Variant(context, name, batch, p) for p in ("fp32", "tf32", "fp16", "bf16") if p != fast]
    for name, batch in _batches(context).items():
        sizes = (128, 1024, 2048, 4096) if gpu else (8, 128, 512)
        found += [Variant(context, name, other, fast) for other in (*sizes, 0) if other != batch]
    modes = ("default", "max-autotune", "graph") if gpu else ()
    return found + [
        Variant(context, name, GPU_BATCHES[name], fast, compile=mode)
        for name in ("resnet18", "speednet")
        for mode in modes
    ]


def _full(context: Context) -> list[Variant]:
    fast, batches = context.fast_precision(), _batches(context)
    found = [
        Variant(context, name, batches[name], fast, work=work)
        for name in ("resnet50", "speednet")
        for work in ("forward", "forward+backward")
    ]
    compiled = "resnet50" if context.on_gpu else "resnet18"
    return [*found, Variant(context, compiled, batches[compiled], fast, compile="default")]


def _case(variant: Variant) -> Case:
    weight = COMPILED if variant.compile != "off" else 1.0 if variant.batch else SEARCHING
    return Case(
        PART,
        variant.name,
        variant.settings(),
        variant.measure,
        weight=weight,
        estimate=variant.shortest_seconds,
    )
