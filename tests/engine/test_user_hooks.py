"""The user's hooks: found by name in every registry, checked before anything slow, and built as they were checked."""

import json
import re

import pytest
from mmengine.hooks import EMAHook, EmptyCacheHook, Hook

from xtune.engine.hooks import resolve_custom_hooks
from xtune.errors import ConfigError

MINE = """
from mmengine.hooks import Hook
from xtune.registry import HOOKS

@HOOKS.register_module(force=True)
class Noting(Hook):
    def __init__(self, path):
        self.path = path

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(self.path, 'a') as file:
            file.write(f'{batch_idx}\\n')
"""


@pytest.mark.parametrize(
    'kind', ['EmptyCacheHook', 'mmengine.EmptyCacheHook', 'mmengine.hooks.EmptyCacheHook', EmptyCacheHook]
)
def test_a_hook_of_mmengine_needs_no_scope(kind):
    settings = dict(after_iter=True, priority='LOW')
    assert resolve_custom_hooks([dict(type=kind, **settings)]) == [dict(type=EmptyCacheHook, **settings)]


def test_hooks_that_are_built_stay_and_none_are_none():
    hook = Hook()
    assert resolve_custom_hooks((hook,)) == [hook] and resolve_custom_hooks(None) == []


NO_HOOKS = [
    [dict(type='EMAHok')],
    [dict(type='mmengine.EMAHok')],
    [dict(type='xtune.EMAHook')],
    [dict(type='')],
    [dict(type='ProgressHook')],
    [Hook(), dict(type='EmptyCacheHook', after=1)],
    [dict(type='EMAHook')],
    [EMAHook()],
    [dict(type=dict)],
    [dict(momentum=1)],
    ['EMAHook'],
    dict(type='EMAHook'),
]


def test_what_is_no_hook_is_refused(golden):
    messages = {}
    for hooks in NO_HOOKS:
        with pytest.raises(ConfigError) as caught:
            resolve_custom_hooks(hooks)
        messages[re.sub('<mmengine.*? at 0x.*?>', '<a hook>', str(hooks))] = caught.value
    golden('config.hooks', messages)


def test_names_of_either_registry_run(make_config, xtune, tmp_path, monkeypatch):
    (tmp_path / 'noting_hook.py').write_text(MINE, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    hooks = [dict(type='Noting', path=str(tmp_path / 'noted')), dict(type='EmptyCacheHook')]
    options = {'custom_imports': ['noting_hook'], 'runner': {'custom_hooks': hooks}, 'schedule.max_steps': 2}
    code, _, err = xtune('train', make_config(**options))
    assert code == 0, err
    assert (tmp_path / 'noted').read_text() == '0\n1\n'
    rows = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text('utf-8').splitlines())
    assert sum('loss' in row for row in rows) == 2


def test_a_run_stops_early_and_goes_on_with_resume(make_config, xtune, tmp_path):
    hook = dict(type='EarlyStoppingHook', monitor='val_loss', rule='less', min_delta=1e3, patience=2)
    # The first measurement is the best; none is better by a thousand.
    options = {'val_dataset': 4, 'validation.every_steps': 1, 'runner': {'custom_hooks': [hook]}}
    config = make_config(**options)
    code, out, err = xtune('train', config)
    assert code == 0 and ' step 3 of ' in out, out + err
    rows = [json.loads(row) for row in (tmp_path / 'run' / 'metrics.jsonl').read_text('utf-8').splitlines()]
    assert sum('val_loss' in row for row in rows) == 3
    assert (tmp_path / 'run' / 'iter_3.pth').exists()
    code, out, err = xtune('train', config, '--resume', '--cfg-options', 'runner=None')
    assert code == 0 and ' step 3 of ' not in out, out + err
    assert (tmp_path / 'run' / 'last_checkpoint').read_text('utf-8').strip() != 'iter_3.pth'
