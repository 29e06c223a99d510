"""Prefetched items have the same order and errors as the original ones."""

import threading
import time

import pytest

from xtune.data.prefetch import prefetch
from xtune.errors import DataError


def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'batch prefetch']


def test_items_are_yielded_in_order():
    assert list(prefetch(range(50))) == list(range(50))
    assert not threads()


def test_the_next_item_is_prepared_in_advance():
    prepared = []
    items = prefetch(prepared.append(i) or i for i in range(9))
    assert next(items) == 0
    for _ in range(200):
        if len(prepared) == 3:  # one waits in the queue, one to enter it
            break
        time.sleep(0.01)
    assert prepared == [0, 1, 2]
    items.close()
    assert not threads() and len(prepared) <= 4


def test_an_error_is_raised_in_place_of_its_item():
    def broken():
        yield 1
        raise DataError('row 7 is empty')

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(DataError, match='row 7 is empty'):
        next(items)
    assert not threads()
