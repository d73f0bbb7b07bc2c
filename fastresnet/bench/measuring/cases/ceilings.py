"""Device ceilings: the most that a machine can do, against which everything else is judged.

Matrix products in each number format, a 3x3 convolution, memory bandwidth, host-to-device copies, the cost of
one launch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Measured, NotAvailable, sample
from fastresnet.bench.measuring.operations import FORMATS, check_format, convolution, copying, product
from fastresnet.machine.ceiling import tf32_where_asked

PART = "ceilings"
# by kind of device: rows and columns of a matrix, images of a convolution, MiB that are copied
SIZES = {"cuda": (8192, 512, 1024), "mps": (4096, 64, 128), "cpu": (1536, 64, 128)}
TINY = (256, 8, 4)
Operation = Callable[[torch.device, str, int], tuple[float, Callable[[], object]]]


def cases(context: Context) -> list[Case]:
    """The ceilings of the device, of its sibling GPUs, and of the CPU that feeds them."""
    count = torch.cuda.device_count() if context.device.type == "cuda" else 0
    gpus = [torch.device("cuda", index) for index in range(count)]
    devices = dict.fromkeys([context.device, *gpus, torch.device("cpu")])
    return [case for device in devices for case in _of_device(device, context.tiny)]


def _of_device(device: torch.device, tiny: bool) -> list[Case]:
    size, images, megabytes = TINY if tiny else SIZES[device.type]
    where = device.type if device.index in (None, 0) else f"{device.type}{device.index}"

    def case(
        name: str, settings: Mapping[str, object], unit: str, measure: Callable[..., Measured], *given: object
    ) -> Case:
        return Case(PART, f"{where}/{name}", settings, partial(measure, device, *given), unit, weight=0.3)

    moved = {"megabytes": megabytes}
    return [
        *(case(f"matmul-{n}", {"size": size}, "FLOP/s", _arithmetic, n, product, size) for n in FORMATS),
        *(
            case(f"conv3x3-{n}", {"channels": 256}, "FLOP/s", _arithmetic, n, convolution, images)
            for n in ("fp32", "bf16")
        ),
        case("memory-copy", moved, "B/s", _memory, megabytes),
        case("host-to-device", moved, "B/s", _upload, megabytes),
        case("launch", {"operation": "add to 1 number"}, "s", _launch),
    ]


def _rates(work: float, function: Callable[[], object], device: torch.device, seconds: float) -> Measured:
    return Measured([work / t for t in sample(function, device, seconds)])


def _arithmetic(device: torch.device, name: str, operation: Operation, size: int, seconds: float) -> Measured:
    check_format(device, name)
    with tf32_where_asked(name), torch.inference_mode():
        flops, call = operation(device, name, size)
        return _rates(flops, call, device, seconds)


def _memory(device: torch.device, megabytes: int, seconds: float) -> Measured:
    """Bytes a second that a copy reads and writes."""
    moved, call = copying(device, megabytes)
    return _rates(moved, call, device, seconds)


def _upload(device: torch.device, megabytes: int, seconds: float) -> Measured:
    if device.type == "cpu":
        raise NotAvailable("a CPU's data is in its memory already")
    source = torch.ones(megabytes * 2**18, pin_memory=device.type == "cuda")
    target = torch.empty_like(source, device=device)
    return _rates(megabytes * 2**20, lambda: target.copy_(source, non_blocking=True), device, seconds)


def _launch(device: torch.device, seconds: float) -> Measured:
    """Seconds of one small operation among many: what the host needs to queue it, or a CPU to dispatch it."""
    x = torch.zeros(1, device=device)
    return Measured(sample(lambda: x.add_(1), device, seconds))
