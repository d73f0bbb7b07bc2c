"""Work spread over threads: results in order, the first error ends it. Knows no work."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.cores import cores_usable

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_threads(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> list[Result]:
    """work(item) for every item on `workers` threads (0: one a core), results in the items' order.

    What is not begun when an item fails is never begun; the first error is raised.
    """
    workers = workers or cores_usable()
    if workers == 1:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)


def blocks(items: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Numbers in pieces of `size`: a thread's portion between two looks at the queue."""
    return [items[start : start + size] for start in range(0, len(items), size)]
