"""Whole pieces of work dealt out to processes: each takes the next, and the first hears what came of it.

They share the job's store and nothing else: without a process group none can be trained into another.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from fastresnet.base.exits import AGAIN_SECONDS
from fastresnet.machine.distributed import World, described
from fastresnet.ranks import agreement
from fastresnet.ranks.joining import stores
from fastresnet.ranks.lifesigns import Terminated, Watch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Piece = TypeVar("Piece")
Said = TypeVar("Said")
Result = TypeVar("Result")
LOOK = 0.1  # seconds between two looks at what others have left in the store


class Table:
    """Where the processes of a job meet. All call the same methods in the same order; alone, nobody waits.

    place:  this process among them
    store:  of the job; None alone
    What is said is passed on as JSON: tuples arrive as lists.
    """

    def __init__(self, place: World, store: Store | None = None) -> None:
        self.place, self._store = place, store
        self._rounds = itertools.count()

    def of_each(self, said: Said) -> list[Said]:
        """What each process says, in rank order. Waits for all."""
        store = self._fresh()
        if store is None:
            return [said]
        store.set(str(self.place.rank), json.dumps(said))
        keys = [str(rank) for rank in range(self.place.size)]
        _until(lambda: store.check(keys))
        return [json.loads(store.get(key)) for key in keys]

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raises agreement.Unlike in all processes where a fact is another one in one of them."""
        agreement.compare(self.of_each({name: str(value) for name, value in facts.items()}))

    def share(
        self,
        pieces: Sequence[Piece],
        do: Callable[[Piece], Iterable[Result]],
        heard: Callable[[Result], object],
    ) -> None:
        """`do` each piece in one of the processes, whichever is free; all have the same pieces.

        `heard` is called in the first process alone, with each result as soon as it is there: of several
        processes in a thread. What it raises ends the sharing. The first waits for all.
        """
        store = self._fresh()
        if store is None:
            for result in itertools.chain.from_iterable(map(do, pieces)):
                heard(result)
        elif self.place.is_main:
            self._host(store, pieces, do, heard)
        else:
            _take(store, pieces, do, lambda: False)

    def _host(
        self,
        store: Store,
        pieces: Sequence[Piece],
        do: Callable[[Piece], Iterable[Result]],
        heard: Callable[[Result], object],
    ) -> None:
        over = threading.Event()
        with ThreadPoolExecutor(1) as ear:
            hearing = ear.submit(_hear, store, heard, over)
            try:
                _take(store, pieces, do, hearing.done)
                _until(lambda: hearing.done() or store.add("done", 0) == self.place.size)
            finally:
                over.set()
            hearing.result()

    def _fresh(self) -> Store | None:
        """A part of the store that nothing stands in yet."""
        if self._store is None:
            return None
        from torch._C._distributed_c10d import PrefixStore  # not in every build of PyTorch

        return PrefixStore(f"round {next(self._rounds)}", self._store)


def _take(
    store: Store, pieces: Sequence[Piece], do: Callable[[Piece], Iterable[Result]], ended: Callable[[], bool]
) -> None:
    """Take pieces as long as there are any, and hand in what comes of them."""
    while not ended() and (number := store.add("taken", 1)) <= len(pieces):
        for result in do(pieces[number - 1]):
            store.set(f"result {store.add('results', 1)}", json.dumps(result))
    store.add("done", 1)


def _hear(store: Store, heard: Callable[[Any], object], over: threading.Event) -> None:
    """Call `heard` with each result in the order of their coming, until it is over and none is left."""
    number = 1
    while True:
        last = over.is_set()  # asked first: what was handed in before is there
        if store.check([f"result {number}"]):
            heard(json.loads(store.get(f"result {number}")))
            number += 1
        elif last:
            return
        else:
            over.wait(LOOK)


def _until(there: Callable[[], bool]) -> None:
    """Wait in Python, which a signal can end."""
    while not there():
        time.sleep(LOOK / 10)


@contextmanager
def meet() -> Iterator[Table]:
    """The table of the processes that torchrun describes in the environment. Alone, nothing is joined.

    Raises ValueError where the environment says half, lifesigns.Lost where another process is lost.
    """
    place = described()
    if place.size == 1:
        yield Table(place)
        return
    own, another = stores()
    with Watch(place, another), _stopping():
        yield Table(place, own)


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, once: torchrun passes on what the terminal has told all already."""
    began: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not began or now - began[0] > AGAIN_SECONDS:
            began.append(now)
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():  # after a failure the process is about to end
        signal.signal(number, handler)
