"""Processes that each tokenise chunks of rows; what they return comes in the order of the chunks."""

import gc
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from .sources import Row

# Chunks. Below this a pool costs more than it saves.
POOL_FROM = 4


def in_order(work: Callable[[list[Row]], tuple], chunks: Iterator[list[Row]], num_proc: int) -> Iterator[tuple]:
    """Yield what `work` makes of each chunk of rows, in order, and show the progress; its last value is a `Report`."""
    head = list(itertools.islice(chunks, POOL_FROM))
    everything = itertools.chain(head, chunks)
    with tqdm(desc='tokenising', unit=' rows', disable=None, leave=False) as bar:
        if num_proc == 1 or len(head) < POOL_FROM:
            results = map(work, everything)
            for result in results:
                bar.update(result[-1].rows)
                yield result
            return
        with _forked(work, num_proc) as pool:
            for result in _bounded(pool, everything, 4 * num_proc):
                bar.update(result[-1].rows)
                yield result


def _bounded(pool, chunks: Iterator[list[Row]], ahead: int) -> Iterator[tuple]:
    """Yield results in order with at most `ahead` chunks in work: `imap` would read the whole source into its queue."""
    waiting = [pool.apply_async(_in_pool, (chunk,)) for chunk in itertools.islice(chunks, ahead)]
    while waiting:
        yield waiting.pop(0).get()
        waiting += [pool.apply_async(_in_pool, (chunk,)) for chunk in itertools.islice(chunks, 1)]


@contextmanager
def _forked(work: Callable, num_proc: int) -> Iterator:
    """A pool of processes, each of one thread, that knows `work` from the fork: the tokenizer is never pickled."""
    global _work
    _work = work
    before = os.environ.get('TOKENIZERS_PARALLELISM')
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    try:
        # Without the cyclic collector: tokens and their places come by the million and hold no cycles.
        with multiprocessing.get_context('fork').Pool(num_proc, gc.disable) as pool:
            yield pool
    finally:
        _work = None
        if before is None:
            del os.environ['TOKENIZERS_PARALLELISM']
        else:
            os.environ['TOKENIZERS_PARALLELISM'] = before


_work: Callable | None = None


def _in_pool(chunk: list[Row]) -> tuple:
    return _work(chunk)
