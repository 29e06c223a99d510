"""A run on streamed rows has the same losses when it is stopped and resumed, with and without a data loader worker."""

import json

import pytest
import torch

# Stops the run after its third step, like Ctrl-C.
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
    """Use one CPU thread: the model is tiny, and the machine may be busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def streaming_config(make_config, tmp_path):
    """Return a function that writes the config of a streaming run of 6 steps on two data sets."""
    rows = [{'messages': [{'role': 'user', 'content': f'{i}?'}, {'role': 'assistant', 'content': f'It is {i}.' * i}]}
            for i in range(1, 10)]  # fmt: skip
    (tmp_path / 'chats.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (tmp_path / 'stop_after_three.py').write_text(HOOK)

    def make(name, stopped=False, **options):
        sources = [
            {'path': str(tmp_path / 'alpaca.json'), 'weight': 2},
            {'path': str(tmp_path / 'chats.jsonl'), 'weight': 1},
        ]
        small = {
            'train_dataset': sources,
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
    """Return (loss, gradient norm) by step, and the trained weights of the last checkpoint."""
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    steps = {row['step']: (row['loss'], row['grad_norm']) for row in rows if 'loss' in row}
    last = work_dir / (work_dir / 'last_checkpoint').read_text().strip()
    return steps, torch.load(last, weights_only=True)['state_dict']


def is_identical(first, second):
    (first_steps, first_weights), (second_steps, second_weights) = first, second
    names = first_weights | second_weights
    return first_steps == second_steps and all(torch.equal(first_weights[n], second_weights[n]) for n in names)


@pytest.mark.parametrize(('pack', 'workers'), [('fit', 0), ('stream', 1)])
def test_stopped_stream_resumes_bit_exactly(streaming_config, xtune, tmp_path, pack, workers):
    code, out, err = xtune('train', streaming_config('uninterrupted', pack=pack))
    assert code == 0, err
    assert 'alpaca.json as alpaca: ' in out and 'chats.jsonl as openai: ' in out
    uninterrupted = outcome(tmp_path / 'uninterrupted')
    assert sorted(uninterrupted[0]) == [1, 2, 3, 4, 5, 6] and len(set(uninterrupted[0].values())) == 6
    config = streaming_config('stopped', stopped=True, pack=pack, **{'data.num_workers': workers})
    code, out, err = xtune('train', config)
    assert code == 130 and 'interrupted after step 3' in out, err
    assert sorted(outcome(tmp_path / 'stopped')[0]) == [1, 2, 3]
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'resuming from' in out, err
    assert is_identical(outcome(tmp_path / 'stopped'), uninterrupted)


def test_stream_resumes_with_more_steps(streaming_config, xtune, tmp_path):
    constant = {'schedule.lr_schedule': 'constant', 'schedule.warmup_ratio': 0.0}
    assert xtune('train', streaming_config('uninterrupted', **constant))[0] == 0
    assert xtune('train', streaming_config('half', **constant, **{'schedule.max_steps': 3}))[0] == 0
    code, _, err = xtune('train', streaming_config('half', **constant), '--resume')
    assert code == 0, err
    assert is_identical(outcome(tmp_path / 'half'), outcome(tmp_path / 'uninterrupted'))
    code, _, err = xtune('train', streaming_config('half', **constant, **{'data.window': 9}), '--resume')
    assert code == 2 and 'epoch_1.pth' in err


@pytest.mark.parametrize('workers', [0, 1])
def test_bad_rows_in_a_later_window_stop_the_run_with_their_places(streaming_config, xtune, tmp_path, workers):
    rows = [{'instruction': f'{i}?', 'input': '', 'output': '' if i > 9 else f'It is {i}.'} for i in range(12)]
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    only = {'train_dataset': {'path': str(tmp_path / 'rows.json')}, 'data.num_workers': workers, 'pack': False}
    code, out, err = xtune('train', streaming_config('run', **only, **{'data.window': 6}))
    assert code == 2 and '2 of the 6 rows of ' in err and 'window 2, cannot be used' in err
    assert 'rows.json, row 11: empty reply' in err and 'rows.json as alpaca: 6 rows' in out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'schedule.max_steps': None}, 'schedule.max_steps'),
        ({'val_dataset': 0.1}, 'val_dataset=0.1'),
        ({'data.longest_first': True}, 'data.longest_first=True'),
    ],
)
def test_options_without_streaming_support_are_refused_early(streaming_config, xtune, options, message):
    code, out, err = xtune('train', streaming_config('run', **options))
    assert code == 2 and message in err and 'Traceback' not in err and 'optimizer steps' not in out
