"""The next step's batches are made while the current step computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar('Item')


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield what `items` yields, one of which a thread makes in advance; an error arrives where its item would."""
    made: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(last: bool, item: Item | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return made.put((last, item), timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(False, item)
                if stopped.is_set():
                    return
        except BaseException as error:  # raised again in the thread that waits
            put(True, error)
        else:
            put(True, None)

    maker = threading.Thread(target=make, name='batches ahead', daemon=True)
    maker.start()
    try:
        while True:
            last, item = made.get()
            if not last:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        maker.join()
