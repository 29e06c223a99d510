"""The user's hooks are resolved in every registry, checked before slow work, and built as checked."""

import json
import re

import pytest
from mmengine.hooks import EMAHook, EmptyCacheHook, Hook

from xtune.engine.hooks import resolve_custom_hooks
from xtune.errors import ConfigError

CUSTOM_HOOK = """
from mmengine.hooks import Hook
from xtune.registry import HOOKS

@HOOKS.register_module(force=True)
class RecordingHook(Hook):
    def __init__(self, path):
        self.path = path

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(self.path, 'a') as file:
            file.write(f'{batch_idx}\\n')
"""


@pytest.mark.parametrize(
    'name', ['EmptyCacheHook', 'mmengine.EmptyCacheHook', 'mmengine.hooks.EmptyCacheHook', EmptyCacheHook]
)
def test_mmengine_hook_needs_no_scope(name):
    settings = dict(after_iter=True, priority='LOW')
    assert resolve_custom_hooks([dict(type=name, **settings)]) == [dict(type=EmptyCacheHook, **settings)]


def test_hook_objects_are_kept_and_none_is_an_empty_list():
    hook = Hook()
    assert resolve_custom_hooks((hook,)) == [hook] and resolve_custom_hooks(None) == []


INVALID_HOOKS = [
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


def test_invalid_hooks_are_refused(golden):
    messages = {}
    for hooks in INVALID_HOOKS:
        with pytest.raises(ConfigError) as caught:
            resolve_custom_hooks(hooks)
        messages[re.sub('<mmengine.*? at 0x.*?>', '<a hook>', str(hooks))] = caught.value
    golden('config.hooks', messages)


def test_hooks_of_both_registries_run(make_config, xtune, tmp_path, monkeypatch):
    (tmp_path / 'recording_hook.py').write_text(CUSTOM_HOOK, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    hooks = [dict(type='RecordingHook', path=str(tmp_path / 'recorded')), dict(type='EmptyCacheHook')]
    options = {'custom_imports': ['recording_hook'], 'runner': {'custom_hooks': hooks}, 'schedule.max_steps': 2}
    code, _, err = xtune('train', make_config(**options))
    assert code == 0, err
    assert (tmp_path / 'recorded').read_text() == '0\n1\n'
    rows = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text('utf-8').splitlines())
    assert sum('loss' in row for row in rows) == 2


def test_early_stopping_hook_stops_the_run_and_resume_continues(make_config, xtune, tmp_path):
    hook = dict(type='EarlyStoppingHook', monitor='val_loss', rule='less', min_delta=1e3, patience=2)
    # No later validation loss is lower than the first one by 1000.
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
