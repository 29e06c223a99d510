"""A run on streamed rows, stopped and resumed, in this process or with a loader beside it: the same losses."""

import json

import pytest
import torch

# Stops the run as Ctrl-C would, once, after its third step.
HOOK = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class StopAfterThree(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """The model is tiny, and the machine may have other things to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def streamed(make_config, tmp_path):
    """Return a function that writes the config of a streamed run of 6 steps on two sets."""
    rows = [{'messages': [{'role': 'user', 'content': f'{i}?'}, {'role': 'assistant', 'content': f'It is {i}.' * i}]}
            for i in range(1, 10)]  # fmt: skip
    (tmp_path / 'chats.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (tmp_path / 'stop_after_three.py').write_text(HOOK)

    def make(name, stopped=False, **options):
        sets = [
            {'path': str(tmp_path / 'alpaca.json'), 'weight': 2},
            {'path': str(tmp_path / 'chats.jsonl'), 'weight': 1},
        ]
        small = {
            'train_dataset': sets,
            'data.streaming': True,
            'data.window': 8,
            'schedule.max_steps': 6,
            'max_length': 64,
            'checkpoint.every_steps': 2,
            'checkpoint.export_adapter': False,
            'log.tensorboard': False,
            'log.plot': False,
        }
        if stopped:
            small |= {'custom_imports': ['stop_after_three'], 'runner.custom_hooks': [{'type': 'StopAfterThree'}]}
        return make_config('lora', name, **(small | options))

    return make


def outcome(work_dir):
    """(loss, gradient norm) of each step, and the trained weights of the last checkpoint."""
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    steps = {row['step']: (row['loss'], row['grad_norm']) for row in rows if 'loss' in row}
    last = work_dir / (work_dir / 'last_checkpoint').read_text().strip()
    return steps, torch.load(last, weights_only=True)['state_dict']


def same(one, two):
    return one[0] == two[0] and all(torch.equal(one[1][name], two[1][name]) for name in one[1] | two[1])


@pytest.mark.parametrize(('pack', 'workers'), [('fit', 0), ('stream', 1)])
def test_a_stopped_stream_goes_on_bit_for_bit(streamed, xtune, tmp_path, pack, workers):
    code, out, err = xtune('train', streamed('whole', pack=pack))
    assert code == 0, err
    assert 'alpaca.json as alpaca: ' in out and 'chats.jsonl as openai: ' in out
    whole = outcome(tmp_path / 'whole')
    assert sorted(whole[0]) == [1, 2, 3, 4, 5, 6] and len(set(whole[0].values())) == 6
    config = streamed('stopped', stopped=True, pack=pack, **{'data.num_workers': workers})
    code, out, err = xtune('train', config)
    assert code == 130 and 'interrupted after step 3' in out, err
    assert sorted(outcome(tmp_path / 'stopped')[0]) == [1, 2, 3]
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'resuming from' in out, err
    assert same(outcome(tmp_path / 'stopped'), whole)


def test_a_longer_stream_goes_on_where_a_shorter_one_ended(streamed, xtune, tmp_path):
    constant = {'schedule.lr_schedule': 'constant', 'schedule.warmup_ratio': 0.0}
    assert xtune('train', streamed('whole', **constant))[0] == 0
    assert xtune('train', streamed('half', **constant, **{'schedule.max_steps': 3}))[0] == 0
    code, _, err = xtune('train', streamed('half', **constant), '--resume')
    assert code == 0, err
    assert same(outcome(tmp_path / 'half'), outcome(tmp_path / 'whole'))
    code, _, err = xtune('train', streamed('half', **constant, **{'data.window': 9}), '--resume')
    assert code == 2 and 'epoch_1.pth' in err


@pytest.mark.parametrize('workers', [0, 1])
def test_bad_rows_met_on_the_way_end_the_run_with_their_places(streamed, xtune, tmp_path, workers):
    rows = [{'instruction': f'{i}?', 'input': '', 'output': '' if i > 9 else f'It is {i}.'} for i in range(12)]
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    only = {'train_dataset': {'path': str(tmp_path / 'rows.json')}, 'data.num_workers': workers, 'pack': False}
    code, out, err = xtune('train', streamed('run', **only, **{'data.window': 6}))
    assert code == 2 and '2 of the 6 rows of ' in err and 'window 2, cannot be used' in err
    assert 'rows.json, row 11: empty reply' in err and 'rows.json as alpaca: 6 rows' in out


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'schedule.max_steps': None}, 'schedule.max_steps'),
        ({'val_dataset': 0.1}, 'val_dataset=0.1'),
        ({'data.longest_first': True}, 'data.longest_first=True'),
    ],
)
def test_what_a_stream_cannot_do_is_refused_before_the_model_is_loaded(streamed, xtune, options, said):
    code, out, err = xtune('train', streamed('run', **options))
    assert code == 2 and said in err and 'Traceback' not in err and 'optimizer steps' not in out
