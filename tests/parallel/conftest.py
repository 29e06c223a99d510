"""Real processes for tests: pairs that run many cases, and `xtune train` as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# One thread a process: the models are tiny, and the machine may have other things to do.
ENVIRONMENT = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false'}
WORKER = Path(__file__).with_name('worker.py')


def free_ports(count):
    """Return ports of this host that nobody listens to, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(('127.0.0.1', 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end(processes):
    """Kill what still runs of `processes`, each with what it started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def in_processes(cases, folder, seconds=180):
    """Run `cases`, each dict(name, config, size), for at most `seconds` each; their output lies in `folder`."""
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


def figures(work_dir):
    """Return what metrics.jsonl says: {(step, 'loss' or 'grad_norm' or 'val_loss'): value}."""
    rows = [json.loads(line) for line in (Path(work_dir) / 'metrics.jsonl').read_text().splitlines()]
    return {(row['step'], key): row[key] for row in rows for key in ('loss', 'grad_norm', 'val_loss') if key in row}


@pytest.fixture(scope='session', name='in_processes')
def _in_processes():
    return in_processes


@pytest.fixture(scope='session', name='figures')
def _figures():
    return figures


@pytest.fixture(scope='session')
def byte_model(tmp_path_factory):
    """A folder with a random two-layer Llama over bytes: what takes time in tests is starting, not the vocabulary."""
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
