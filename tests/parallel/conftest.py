"""Real processes for tests: pairs of ranks that run many cases, and `xtune train` started like by a user."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# One thread per process, because the models are tiny.
ENVIRONMENT = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false'}
# Different lengths, so that sequences are filled unevenly and the last step of an epoch is incomplete.
ROWS = [
    {'instruction': f'What is {a} plus {b}?', 'input': '', 'output': f'It is {a + b}.' + ' Indeed.' * (a * b // 3)}
    for a in range(8)
    for b in range(5)
]
WORKER = Path(__file__).with_name('worker.py')


def free_ports(count):
    """Return different free ports of this host."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def in_processes(cases, folder, seconds=180):
    """Run `cases`, each dict(name, config, size), for at most `seconds` each; their output is in `folder`."""
    ports = free_ports(len(cases))
    cases = [dict(case, port=port, seconds=seconds) for case, port in zip(cases, ports, strict=True)]
    (folder / 'cases.json').write_text(json.dumps(cases))
    with (folder / 'worker.log').open('w') as log:
        code = subprocess.run(
            [sys.executable, str(WORKER), str(folder / 'cases.json')],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, 'DS_ACCELERATOR': 'cpu', 'XTUNE_CACHE': str(folder / 'cache')},
        ).returncode
    logs = sorted(folder.glob('*.log'), key=lambda path: path.stat().st_mtime)
    assert code == 0, '\n\n'.join(f'{log.name}:\n{log.read_text()[-4000:]}' for log in logs[-3:])


def write_config(folder, name, method, **options):
    """Write the config of a small run whose work_dir is `folder / name`; return its path."""
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    if not (folder / 'alpaca.json').exists():
        (folder / 'alpaca.json').write_text(json.dumps(ROWS))
    small = {
        'train_dataset.path': str(folder / 'alpaca.json'),
        'work_dir': str(folder / name),
        'max_length': 160,
        'precision': 'fp32',
        'activation_checkpointing': 'none',
        'schedule.batch_size': 1,
        'schedule.gradient_accumulation_steps': 2,
        'schedule.max_epochs': 9,
        'log.every_steps': 1,
        'log.tensorboard': False,
        'log.plot': False,
        'chat_samples.every_steps': None,
        'data.num_proc': 1,
    }
    preset = {'full': 'smollm2_135m_full_selfcog_e2'}.get(method, f'smollm2_135m_{method}_alpaca_e1')
    if method == 'full':
        small |= {'train_dataset.map_fn': 'alpaca', 'train_dataset.map_args': None}
    path = folder / f'{name}.py'
    path.write_text(flatten(find(preset), {**small, **options}), encoding='utf-8')
    return path


class StartedCommand:
    """A command in a new session: its `output` so far, its `exit` code, and `end`, which kills all its processes."""

    def __init__(self, command, folder, name, **env):
        self.log = folder / f'{name}.log'
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**ENVIRONMENT, 'XTUNE_CACHE': str(folder / 'cache'), **env},
                start_new_session=True,
            )

    @property
    def output(self):
        return self.log.read_text(encoding='utf-8')

    def exit(self, seconds=120):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f'still running after {seconds} s:\n{self.output[-6000:]}') from None

    def until(self, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output[-6000:]
            time.sleep(0.02)

    def ranks(self):
        """Return {rank: pid} of the training processes."""
        pids = {}
        for path in Path('/proc').glob('[0-9]*/environ'):
            try:
                variables = dict(item.split('=', 1) for item in path.read_text().split('\0') if '=' in item)
                parent = int(path.with_name('stat').read_text().rpartition(')')[2].split()[1])
            except (OSError, UnicodeDecodeError):
                continue
            if parent == self.process.pid and 'RANK' in variables:
                pids[int(variables['RANK'])] = int(path.parent.name)
        return pids

    def end(self):
        pids = [self.process.pid, *self.ranks().values()]
        for pid in pids if self.process.poll() is None else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


@pytest.fixture
def start():
    """Return `StartedCommand`, whose processes are killed after the test."""
    started = []

    def start(*arguments, **env):
        started.append(StartedCommand(*arguments, **env))
        return started[-1]

    yield start
    for command in started:
        command.end()


def figures(work_dir):
    """Return the values in metrics.jsonl: {(step, 'loss' or 'grad_norm' or 'val_loss'): value}."""
    rows = [json.loads(line) for line in (Path(work_dir) / 'metrics.jsonl').read_text().splitlines()]
    return {(row['step'], key): row[key] for row in rows for key in ('loss', 'grad_norm', 'val_loss') if key in row}


@pytest.fixture(scope='session')
def once(tmp_path_factory):
    """Return a function (name, make) -> folder: one test process calls make(folder), the others wait."""
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    root = root.parent if 'PYTEST_XDIST_WORKER' in os.environ else root

    def once(name, make):
        with FileLock(root / f'{name}.lock'):
            if not (root / name / 'complete').exists():
                (root / name).mkdir(parents=True)
                make(root / name)
                (root / name / 'complete').touch()
        return root / name

    return once


@pytest.fixture(scope='session', name='in_processes')
def _in_processes():
    return in_processes


@pytest.fixture(scope='session', name='write_config')
def _write_config():
    return write_config


@pytest.fixture(scope='session', name='ports')
def _ports():
    return free_ports


@pytest.fixture(scope='session', name='figures')
def _figures():
    return figures


@pytest.fixture(scope='session')
def byte_model(tmp_path_factory):
    """A folder with a random two-layer Llama over bytes: a small vocabulary makes starting faster."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
    tokens = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=special[2],
        pad_token=special[0],
        extra_special_tokens=special[1:2],
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp('models') / 'bytes'
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
