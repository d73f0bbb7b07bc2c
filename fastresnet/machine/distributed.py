"""Where this process stands among those that torchrun started, one a device. Sends nothing; `ranks` does.

Without torchrun every process is a world of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Where this process stands, of `size` and on its host of `local_size` processes; ranks count from 0."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


ALONE = World()


def described() -> World:
    """Where the environment says that this process stands. Raises ValueError where it says half of it."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={size} stands in the environment without {', '.join(missing)}: "
            "start several processes with torchrun, or unset it"
        )
    numbers = [os.environ["RANK"], os.environ["LOCAL_RANK"], size, os.environ.get("LOCAL_WORLD_SIZE", "1")]
    if not all(number.isdecimal() for number in numbers) or not int(numbers[0]) < int(size):
        raise ValueError(
            "RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be whole numbers, RANK the lesser: "
            f"got {numbers}"
        )
    return World(*map(int, numbers))


def check_alone() -> None:
    """Raises ValueError where torchrun started several processes, for what they would do as often."""
    if described().size > 1:
        raise ValueError(
            "the processes that torchrun starts (WORLD_SIZE tells of them) share one run of `train`, or the "
            "runs of `reproduce` and `search`: start this command without torchrun, in one process"
        )


def local_batch_size(global_batch_size: int, place: World) -> int:
    """Images a process takes of each batch. Raises ValueError where the batch doesn't divide evenly."""
    if global_batch_size % place.size:
        raise ValueError(
            f"train.batch_size={global_batch_size} doesn't divide over {place.size} processes: "
            f"take a multiple of {place.size}"
        )
    return global_batch_size // place.size
