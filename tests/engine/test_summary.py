"""What a run says before its first step about the devices."""

import pytest

from xtune.engine.summary import held_by_each
from xtune.parallel.compatibility import SPREAD, STRATEGIES


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_it_says_what_each_process_holds(strategy):
    text = held_by_each(strategy)
    assert ('each with the whole model' in text) == (strategy not in SPREAD)
    assert ('slice' in text) == (strategy not in ('one_device', 'ddp'))
    assert ('host memory' in text) == strategy.endswith('_offload')
