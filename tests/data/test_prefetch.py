"""Batches made in advance are those of the loader, in its order, and so are its errors."""

import threading
import time

import pytest

from xtune.data.prefetch import prefetch
from xtune.errors import DataError


def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'batch prefetch']


def test_all_arrive_in_order():
    assert list(prefetch(range(50))) == list(range(50))
    assert not threads()


def test_the_next_one_is_made_while_this_one_is_used():
    made = []
    items = prefetch(made.append(i) or i for i in range(9))
    assert next(items) == 0
    for _ in range(200):
        if len(made) == 3:  # one waits in the queue, one to enter it
            break
        time.sleep(0.01)
    assert made == [0, 1, 2]
    items.close()
    assert not threads() and len(made) <= 4


def test_an_error_comes_where_its_item_would():
    def broken():
        yield 1
        raise DataError('row 7 is empty')

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(DataError, match='row 7 is empty'):
        next(items)
    assert not threads()
