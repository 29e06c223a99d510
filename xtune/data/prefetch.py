"""Prepare the next item in a background thread, such as the batches of the next step while the GPU computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar('Item')


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield from `items`, of which a thread prepares one in advance. Errors are raised where their item is due."""
    results: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(is_last: bool, result: Item | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return results.put((is_last, result), timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(False, item)
                if stopped.is_set():
                    return
        except BaseException as error:  # raised again in the consuming thread
            put(True, error)
        else:
            put(True, None)

    producer = threading.Thread(target=produce, name='batch prefetch', daemon=True)
    producer.start()
    try:
        while True:
            is_last, result = results.get()
            if not is_last:
                yield result
            elif result is None:
                return
            else:
                raise result
    finally:
        stopped.set()
        producer.join()
