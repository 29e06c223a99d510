"""Tokenize chunks of rows in worker processes; results keep the order of the chunks."""

import gc
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from .sources import Row

# Chunks. With fewer, starting a pool costs more time than it saves.
MIN_CHUNKS_FOR_POOL = 4


def map_in_order(work: Callable[[list[Row]], tuple], chunks: Iterator[list[Row]], num_proc: int) -> Iterator[tuple]:
    """Yield `work(chunk)` for each chunk of rows, in order, with a progress bar; its last value is a `Report`."""
    head = list(itertools.islice(chunks, MIN_CHUNKS_FOR_POOL))
    all_chunks = itertools.chain(head, chunks)
    with tqdm(desc='tokenizing', unit=' rows', disable=None, leave=False) as bar:
        if num_proc == 1 or len(head) < MIN_CHUNKS_FOR_POOL:
            for result in map(work, all_chunks):
                bar.update(result[-1].rows)
                yield result
            return
        with _pool(work, num_proc) as pool:
            for result in _map_bounded(pool, all_chunks, 4 * num_proc):
                bar.update(result[-1].rows)
                yield result


def _map_bounded(pool, chunks: Iterator[list[Row]], max_pending: int) -> Iterator[tuple]:
    """Yield results in order with at most `max_pending` chunks queued: `imap` would read the full source at once."""
    pending = [pool.apply_async(_run_in_worker, (chunk,)) for chunk in itertools.islice(chunks, max_pending)]
    while pending:
        yield pending.pop(0).get()
        pending += [pool.apply_async(_run_in_worker, (chunk,)) for chunk in itertools.islice(chunks, 1)]


@contextmanager
def _pool(work: Callable, num_proc: int) -> Iterator:
    """A pool of single-threaded processes that inherit `work` by forking, so the tokenizer is never pickled."""
    global _work
    _work = work
    before = os.environ.get('TOKENIZERS_PARALLELISM')
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    try:
        # Without the cyclic garbage collector: millions of tokens and offsets have no reference cycles.
        with multiprocessing.get_context('fork').Pool(num_proc, gc.disable) as pool:
            yield pool
    finally:
        _work = None
        if before is None:
            del os.environ['TOKENIZERS_PARALLELISM']
        else:
            os.environ['TOKENIZERS_PARALLELISM'] = before


_work: Callable | None = None


def _run_in_worker(chunk: list[Row]) -> tuple:
    return _work(chunk)
