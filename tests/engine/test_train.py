"""Training through the command line: files, metrics, interruption and resuming."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

# The same number of threads as in this process, because another one may round differently.
ENVIRONMENT = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': str(torch.get_num_threads())}


def losses(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    steps = [(row['step'], row['loss']) for row in rows if 'loss' in row]
    assert len(dict(steps)) == len(steps)  # a resumed run replaces the lines of repeated steps
    return dict(steps)


def start(*arguments, stderr=subprocess.STDOUT):
    command = [sys.executable, '-m', 'xtune.cli', 'train', *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENVIRONMENT)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


@pytest.mark.parametrize('method', ['lora', 'qlora', pytest.param('int8', marks=pytest.mark.slow), 'full'])
def test_run_writes_checkpoints_metrics_and_adapter(method, make_config, xtune, tmp_path):
    options = {'quantization': {'type': 'transformers.BitsAndBytesConfig', 'load_in_8bit': True}}
    config = make_config(
        'lora' if method == 'int8' else method,
        val_dataset=4,
        **{'chat_samples.every_steps': 3, 'log.plot': True},
        **(options if method == 'int8' else {}),
    )
    code, out, err = xtune('train', config)
    assert code == 0, err
    assert 'MatMul8bitLt' not in out + err  # the int8 kernels' remark for every layer and call
    run = tmp_path / 'run'
    names = {p.name for p in run.iterdir()}
    steps = losses(run)
    total = max(steps)
    assert {'epoch_1.pth', 'epoch_2.pth', 'last_checkpoint', 'run.py', 'metrics.jsonl', 'loss.png'} <= names
    assert sorted(steps) == list(range(1, total + 1)) and all(torch.isfinite(torch.tensor(list(steps.values()))))
    assert len([n for n in names if n.endswith('.pth')]) == 2  # checkpoint.keep
    assert not [n for n in names if 'tmp' in n]
    assert (run / 'last_checkpoint').read_text().strip() == 'epoch_2.pth'
    assert list(run.rglob('events.out.tfevents*'))
    assert any('val_loss' in line for line in (run / 'metrics.jsonl').read_text().splitlines())
    assert len((run / 'chat_samples.jsonl').read_text().splitlines()) >= 2
    assert 'model' in out and 'optimizer steps' in out and 'validation loss' in out
    assert ('epoch_2_hf' in names) == (method != 'full')


def test_background_checkpoints_contain_the_state_of_their_step(make_config, xtune, tmp_path, monkeypatch):
    """On a slow disk, the next steps run meanwhile and do not change the written content."""
    options = {'schedule.max_epochs': 4, 'checkpoint.every_steps': 1, 'checkpoint.keep': None, 'log.plot': False}
    assert xtune('train', make_config('full', 'one', **options))[0] == 0
    fsync, in_main = os.fsync, []

    def slow_fsync(file):
        time.sleep(0.2)
        in_main.append(threading.current_thread() is threading.main_thread())
        fsync(file)

    monkeypatch.setattr(os, 'fsync', slow_fsync)
    code, out, err = xtune('train', make_config('full', 'two', **options, **{'checkpoint.background': True}))
    assert code == 0, err
    first, second = ({p.name: p for p in (tmp_path / name).glob('*.pth')} for name in ('one', 'two'))
    assert set(first) == set(second) and len(first) == 8 and in_main == [False] * 8
    for name, path in first.items():
        a, b = (torch.load(p, weights_only=True) for p in (path, second[name]))
        assert a['meta']['iter'] == b['meta']['iter']
        assert all(torch.equal(a['state_dict'][k], b['state_dict'][k]) for k in a['state_dict'])
        for number, states in a['optimizer'].items():
            assert all(torch.equal(states[k], b['optimizer'][number][k]) for k in states)


def test_loss_falls(make_config, xtune, tmp_path):
    options = {'schedule.max_epochs': 10, 'optimizer.lr': 1e-2, 'checkpoint.every_steps': None}
    xtune('train', make_config('full', **options))
    steps = losses(tmp_path / 'run')
    assert steps[max(steps)] < steps[1] - 2


@pytest.mark.parametrize('method', ['lora', pytest.param('qlora', marks=pytest.mark.slow)])
def test_killed_run_resumes_bit_exactly(method, make_config, xtune, tmp_path):
    options = {'schedule.max_epochs': 6, 'checkpoint.every_steps': 3, 'checkpoint.every_epochs': None}
    uninterrupted = make_config(method, 'uninterrupted', **options)
    code, _, err = xtune('train', uninterrupted)
    assert code == 0, err

    killed = make_config(method, 'killed', **options)
    process = start(killed)
    wait_for(tmp_path / 'killed' / 'iter_3.pth', process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # A truncated latest file, as left by a kill during a copy: the one before it must be used.
    newest = max((tmp_path / 'killed').glob('*.pth'), key=lambda p: p.stat().st_mtime_ns)
    truncated = newest.with_name('iter_999.pth')
    truncated.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])

    code, out, err = xtune('train', killed, '--resume')
    assert code == 0, err
    assert 'iter_999.pth' in out and str(newest) in out
    assert not (tmp_path / 'killed' / 'running.json').exists()
    assert losses(tmp_path / 'killed') == losses(tmp_path / 'uninterrupted')
    one, two = (torch.load(tmp_path / n / 'iter_12.pth', weights_only=True) for n in ('uninterrupted', 'killed'))
    assert all(torch.equal(one['state_dict'][k], two['state_dict'][k]) for k in one['state_dict'])


def test_second_run_is_refused_and_interrupt_writes_a_checkpoint(make_config, xtune, tmp_path):
    config = make_config(**{'schedule.max_epochs': 5000, 'checkpoint.every_epochs': None, 'checkpoint.keep': None})
    process = start(config, stderr=subprocess.PIPE)
    wait_for(tmp_path / 'run' / 'iter_2_hf', process)
    for other in ((), ('--resume',)):
        code, out, err = xtune('train', config, *other, '--cfg-options', 'optimizer.lr=1e-3')
        assert code == 2 and not out and f'process {process.pid} on ' in err and '--work-dir' in err
    # a conversion only reads from the live run, so it is allowed
    code, _, err = xtune('convert', 'pth_to_hf', config, tmp_path / 'run' / 'iter_2.pth', tmp_path / 'hf')
    assert code == 0 and (tmp_path / 'run' / 'iter_2.pth').exists() and not list(tmp_path.rglob('earlier_*')), err
    process.stdout.close()  # like the `tee` of `xtune train | tee log`, which Ctrl-C ends too
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(timeout=60) == 130, err
    assert 'Ctrl-C' in err and '--resume' in err.partition('Ctrl-C')[2] and 'Traceback' not in err, err
    assert len([p for p in (tmp_path / 'run').iterdir() if p.name.startswith('20')]) == 1  # the TensorBoard log
    last = tmp_path / 'run' / (tmp_path / 'run' / 'last_checkpoint').read_text().strip()
    assert torch.load(last, weights_only=True)['meta']['iter'] == max(losses(tmp_path / 'run'))
    assert not (tmp_path / 'run' / 'running.json').exists()


def test_resume_refuses_other_data_and_another_adapter(make_config, xtune, golden, tmp_path):
    xtune('train', make_config())
    messages = {}
    for option in ('schedule.batch_size=3', 'max_length=64', 'lora.r=4'):
        code, _, messages[option] = xtune('train', make_config(), '--resume', '--cfg-options', option)
        assert code == 2
    code, _, messages['epoch_7.pth'] = xtune('train', make_config(), '--resume', tmp_path / 'run' / 'epoch_7.pth')
    assert code == 2
    golden('checkpoint.of_another_run', messages)


def test_resume_without_a_checkpoint_is_an_error(make_config, xtune):
    code, _, err = xtune('train', make_config(), '--resume')
    assert code == 2 and '.pth' in err


def test_data_loader_workers_do_not_change_losses(make_config, xtune, tmp_path):
    for name, workers in (('none', 0), ('two', 2)):
        assert xtune('train', make_config(name=name, pack=False, **{'data.num_workers': workers}))[0] == 0
    assert losses(tmp_path / 'none') == losses(tmp_path / 'two')


def test_resume_applies_a_changed_learning_rate_and_more_epochs(make_config, xtune, tmp_path):
    constant = {'schedule.lr_schedule': 'constant', 'schedule.warmup_ratio': 0.0}
    xtune('train', make_config(**constant))
    code, _, err = xtune(
        'train', make_config(**constant, **{'optimizer.lr': 5e-5, 'schedule.max_epochs': 3}), '--resume'
    )
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert [row['lr'] for row in rows] == [2e-4] * 4 + [5e-5] * 2


def test_other_pth_files_in_the_work_dir_are_kept(make_config, xtune, tmp_path):
    (tmp_path / 'run').mkdir()
    for name in ('my_best.pth', 'epoch_1_backup.pth'):
        (tmp_path / 'run' / name).write_bytes(b'user file')
    xtune('train', make_config(**{'checkpoint.keep': 1}))
    names = sorted(p.name for p in (tmp_path / 'run').glob('*.pth'))
    assert names == ['epoch_1_backup.pth', 'epoch_2.pth', 'my_best.pth']


def test_modules_to_save_are_trained_in_float32(make_config, xtune, tiny_model, tmp_path):
    options = {'lora.modules_to_save': ['lm_head'], 'precision': 'bf16', 'schedule.max_epochs': 1}
    assert xtune('train', make_config(**options))[0] == 0
    state = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)['state_dict']
    assert {tensor.dtype for tensor in state.values()} == {torch.float32} and any('lm_head' in name for name in state)


def test_prompt_tuning_and_bad_chat_samples_are_refused_at_the_start(make_config, xtune):
    prompt_tuning = {'type': 'peft.PromptTuningConfig', 'num_virtual_tokens': 2, 'task_type': 'CAUSAL_LM'}
    code, _, err = xtune('train', make_config(lora=prompt_tuning))
    assert code == 2 and 'virtual tokens' in err
    samples = {'chat_samples.every_steps': 100, 'chat_samples.prompts': [7]}
    code, _, err = xtune('train', make_config(**samples))
    assert code == 2 and 'chat_samples.prompts contains 7' in err


def test_resuming_a_finished_run_changes_nothing(make_config, xtune, tmp_path):
    config = make_config(val_dataset=4)
    xtune('train', config)
    names, lines = (
        sorted(p.name for p in (tmp_path / 'run').glob('*_*')),
        (tmp_path / 'run' / 'metrics.jsonl').read_text(),
    )
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'done' in out, err
    assert (tmp_path / 'run' / 'metrics.jsonl').read_text() == lines
    assert [n for n in names if n.endswith('.pth')] == sorted(p.name for p in (tmp_path / 'run').glob('*.pth'))


def learning_rates(steps, **schedule):
    """Return the learning rate of each step, and the one after the last, for a peak of 1."""
    from mmengine.optim import OptimWrapper
    from mmengine.registry import PARAM_SCHEDULERS

    from xtune.config.sections import Schedule
    from xtune.engine.optimizer import schedulers

    wrapper = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    parts = [
        PARAM_SCHEDULERS.build(part, default_args=dict(optimizer=wrapper))
        for part in schedulers(Schedule(**schedule), steps)
    ]
    rates = []
    for _ in range(steps):
        rates.append(wrapper.get_lr()['lr'][0])
        wrapper.step()
        for part in parts:
            part.step()
    return rates, wrapper.get_lr()['lr'][0]


@pytest.mark.parametrize('lr_schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('steps', [1, 2, 3])
@pytest.mark.parametrize('warmup', [0.0, 0.5, 1.0])
def test_learning_rate_of_short_runs(steps, warmup, lr_schedule):
    """Warm-up reaches the peak and the schedule falls, also in runs of few steps."""
    rates, _ = learning_rates(steps, warmup_ratio=warmup, lr_schedule=lr_schedule)
    assert max(rates) == pytest.approx(1.0) and all(0 < rate <= 1 for rate in rates)


@pytest.mark.parametrize('min_ratio', [0.0, 0.1])
def test_linear_schedule_with_warmup(min_ratio):
    rates, after = learning_rates(20, warmup_ratio=0.2, lr_schedule='linear', min_lr_ratio=min_ratio)
    expected = [0.2, 0.4, 0.6, 0.8] + [1 - (1 - min_ratio) * step / 16 for step in range(16)]
    assert rates == pytest.approx(expected) and after == pytest.approx(min_ratio, abs=1e-12)


def test_second_run_archives_the_first_and_prints_a_working_command(make_config, xtune, tmp_path):
    config = make_config(name='my run')
    xtune('train', config)
    code, out, _ = xtune('train', config)
    assert code == 0 and 'earlier run' in out
    assert list((tmp_path / 'my run').glob('earlier_*/epoch_2.pth'))
    command = shlex.split(out.rpartition('Next: xtune ')[2].splitlines()[0])
    assert len(command) == 5 and xtune(*command[:-1], tmp_path / 'hf')[0] == 0


def test_archives_of_the_same_second_have_different_names(tmp_path, monkeypatch):
    from xtune.engine.work_dir import archive_previous_run

    monkeypatch.setattr('time.strftime', lambda form: 'earlier_20260101_000000')
    for n in range(3):
        (tmp_path / 'iter_1.pth').write_text(str(n))
        (tmp_path / 'iter_1_hf').mkdir()
        (tmp_path / 'iter_1_hf' / 'adapter_model.safetensors').write_text(str(n))
        archive_previous_run(tmp_path)
    folders = sorted(tmp_path.iterdir())
    assert [folder.name[23:] for folder in folders] == ['', '_2', '_3']
    for n, folder in enumerate(folders):
        assert (folder / 'iter_1.pth').read_text() == str(n)
        assert (folder / 'iter_1_hf' / 'adapter_model.safetensors').read_text() == str(n)


def test_max_steps_and_constant_schedule(make_config, xtune, tmp_path):
    options = {'schedule.max_steps': 3, 'schedule.lr_schedule': 'constant', 'schedule.warmup_ratio': 0.0}
    xtune('train', make_config(**options))
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2, 3] and {row['lr'] for row in rows} == {2e-4}
    assert (tmp_path / 'run' / 'iter_3.pth').exists()


def test_deepspeed_on_one_device_prints_a_note_and_offload_is_refused(make_config, xtune):
    code, out, _ = xtune('train', make_config(), '--deepspeed', 'zero2')
    assert code == 0 and 'note: strategy zero2' in out
    code, _, err = xtune('train', make_config(), '--deepspeed', 'zero3_offload')
    assert code == 2 and 'offload' in err.lower()


def test_non_finite_loss_names_step_rows_and_module(make_config, xtune, tiny_model, tmp_path):
    import shutil

    from transformers import AutoModelForCausalLM

    broken = tmp_path / 'broken'
    shutil.copytree(tiny_model, broken)
    llm = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        # The weights are finite, because loading refuses others; the product of their outputs is not.
        llm.model.layers[0].mlp.gate_proj.weight.fill_(1e25)
        llm.model.layers[0].mlp.up_proj.weight.fill_(1e25)
    llm.save_pretrained(broken)
    code, _, err = xtune('train', make_config(base_model=str(broken)))
    assert code == 2
    assert 'optimizer step 1' in err and 'down_proj' in err and 'alpaca.json, row ' in err
