"""Sequences sharded over two ranks have the losses, gradients and files of full sequences on one rank."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore

from xtune.config.run_config import RunConfig
from xtune.data.batches import SequenceShard
from xtune.data.collate import collate
from xtune.data.rank_shard import RankShard
from xtune.engine.train import train
from xtune.errors import ConfigError
from xtune.parallel.ulysses_check import check_devices

# name -> (model, method, strategy, options, case to compare with). Most sequences have an odd length.
PLAIN, PACKED = {'pack': False, 'activation_checkpointing': 'none'}, {'pack': True, 'activation_checkpointing': 'all'}
ADAPTER, CHAT = {'lora.lora_dropout': 0.0, 'val_dataset': 5}, {'chat_samples.every_steps': 4}
EAGER = {'llm.attn_implementation': 'eager', 'activation_checkpointing': 'all'}
CASES = {
    'full': ('llama', 'full', 'ddp', PLAIN, None),
    'lora_packed': ('llama', 'lora', 'ddp', {**PACKED, **ADAPTER, **CHAT}, None),
    'one_key_head_packed': ('one_key_head', 'full', 'ddp', PACKED, None),
    'sliding_lora': ('sliding', 'lora', 'ddp', {**PLAIN, **ADAPTER, **EAGER}, None),
    'fsdp2': ('llama', 'lora', 'fsdp2', {**PACKED, **ADAPTER}, 'lora_packed'),
    'zero2': ('llama', 'full', 'zero2', PLAIN, 'full'),
}
# Cases that run without -m slow.
QUICK = ('lora_packed', 'fsdp2')
SHORT_RUN = {
    'schedule.max_steps': 8,
    'schedule.max_epochs': 8,
    'log.plot': False,
    'log.tensorboard': False,
    'checkpoint.every_steps': None,
    'checkpoint.every_epochs': None,
    'chat_samples.max_new_tokens': 8,
}
WORKER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from xtune.config.run_config import RunConfig
from xtune.engine.train import train
from xtune.parallel.env import from_environment, mute_other_ranks

world = from_environment()
mute_other_ranks(world)
for number, (path, options) in enumerate(json.load(open(sys.argv[1]))):
    assert train(RunConfig.read(Path(path), options), world=replace(world, attempt=number)) == 0
    # A thread that releases a tensor during interpreter shutdown would abort the process.
    threads = [task.read_text().strip() for task in Path('/proc/self/task').glob('*/comm')]
    assert not [name for name in threads if 'gloo' in name], (options, threads)
"""


@pytest.fixture(scope='module')
def models(tmp_path_factory, tokenizer):
    """Folders of tiny models with large weights, so that wrong attention changes the loss."""
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    common = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.4,
        tie_word_embeddings=True,
        **dict(bos_token_id=1, eos_token_id=2, pad_token_id=2),
    )
    configs = {
        'llama': LlamaConfig(num_key_value_heads=2, **common),
        'one_key_head': LlamaConfig(num_key_value_heads=1, **common),
        'sliding': MistralConfig(num_key_value_heads=2, sliding_window=20, **common),
    }
    folders = {}
    for name, config in configs.items():
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp('models') / name
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def run_processes(folder, script, arguments, count=2):
    """Run `script` in `count` ranks; return their exit codes and outputs."""
    path = folder / 'worker.py'
    path.write_text(script, encoding='utf-8')
    # Like in torchrun, the store is in the parent process, so that one worker can run several trainings.
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    started = []
    for rank in range(count):
        world = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, MASTER_ADDR='127.0.0.1', MASTER_PORT=store.port)
        environment = {
            **os.environ,
            'HF_HUB_OFFLINE': '1',
            'OMP_NUM_THREADS': '1',
            'TORCHELASTIC_USE_AGENT_STORE': 'True',
            **{k: str(v) for k, v in world.items()},
        }
        command = [sys.executable, str(path), *map(str, arguments)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        outs = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], outs


def read_metrics(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('names', [QUICK, pytest.param(tuple(CASES), marks=pytest.mark.slow)], ids=['quick', 'all'])
def test_sharded_sequences_have_the_losses_of_full_ones(models, make_config, tmp_path, names):
    todo, cases = [], {name: CASES[name] for name in names}
    for name, (model, method, strategy, options, other) in cases.items():
        config = make_config(method, name, base_model=str(models[model]), **{**SHORT_RUN, **options})
        if other is None:
            assert train(RunConfig.read(config, {'work_dir': str(tmp_path / f'{name}_full')})) == 0
        todo.append((str(config), {'strategy.name': strategy, 'strategy.sequence_parallel_size': 2}))
    (tmp_path / 'todo.json').write_text(json.dumps(todo))
    codes, outs = run_processes(tmp_path, WORKER, [tmp_path / 'todo.json'])
    assert codes == [0, 0], outs[0][-3000:] + outs[1][-3000:]
    assert outs[0].count('each sharded over 2 consecutive ranks') == len(cases)
    assert outs[0].count('of 2 x 2 sequences') == len(cases)
    worst = {}
    for name, case in cases.items():
        full, sharded = read_metrics(tmp_path / f'{case[-1] or name}_full'), read_metrics(tmp_path / name)
        assert len(sharded) == len(full) >= 8
        for a, b in zip(full, sharded, strict=True):
            for key in {'loss', 'grad_norm', 'lr', 'val_loss'} & set(a):
                worst[name, key] = max(worst.get((name, key), 0), abs(a[key] - b[key]) / abs(a[key]))
    assert ('lora_packed', 'val_loss') in worst
    allowed = {('zero2', 'grad_norm'): 3e-5}  # the norm of DeepSpeed differs by this also without sharded sequences
    assert not {key: value for key, value in worst.items() if not value < allowed.get(key, 1e-5)}
    answers = {(tmp_path / f / 'chat_samples.jsonl').read_text() for f in ('lora_packed', 'lora_packed_full')}
    assert len(answers) == 1 and '' not in answers


PARITY_CHECK_WORKER = """
import json, sys
import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM
from xtune.config.sections import Strategy
from xtune.errors import ModelError
from xtune.parallel.ulysses_check import sequence_parallel_group

dist.init_process_group('gloo')
dist.barrier()
results = {}
for name, options in json.load(open(sys.argv[1])).items():
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options))
    try:
        strategy = Strategy('ddp', sequence_parallel_size=2)
        sequence_parallel_group(llm, torch.float32, torch.device('cpu'), strategy, 1024)
        results[name] = 'accepted'
    except ModelError as error:
        results[name] = str(error)
print(json.dumps(results))
"""
TINY = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=128,
    initializer_range=0.3,
    pad_token_id=0,
)
LONG = dict(rope_type='longrope', rope_theta=1e4, short_factor=[1.0] * 4, long_factor=[2.0] * 4)
# name -> (options of a config, None if its sequences can be sharded, else a part of the error).
MODELS = {
    'gemma2, eager, capped, windows': (dict(model_type='gemma2', sliding_window=5), None),
    'gemma3, windows': (dict(model_type='gemma3_text', sliding_window=5), None),
    'qwen3 with experts': (
        dict(model_type='qwen3_moe', num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        None,
    ),
    'learned positions': (dict(model_type='gpt2', n_embd=32, n_layer=2, n_head=4, n_positions=128), None),
    'three heads': (dict(model_type='llama', num_attention_heads=3, hidden_size=24), '3 attention heads'),
    'sinks': (dict(model_type='gpt_oss', num_local_experts=4), 'attends with s_aux'),
    'ALiBi': (dict(model_type='bloom', n_head=4, n_layer=2), 'AttentionInterface'),
    'ALiBi of Baichuan': (dict(model_type='xtune_baichuan_alibi', num_key_value_heads=4), "'xtune_alibi'"),
    'positions of its own': (dict(model_type='opt', ffn_dim=64, word_embed_proj_dim=32), 'parity check'),
    'recurrent layers': (dict(model_type='mamba'), 'linear_attention'),
    'convolutions': (dict(model_type='lfm2', layer_types=['conv', 'full_attention']), 'conv'),
    'chunks': (
        dict(model_type='llama4_text', layer_types=['chunked_attention', 'full_attention'], num_local_experts=2),
        'chunked_attention',
    ),
    'arguments that stop halfway': (dict(model_type='stablelm'), 'does not pass'),
    'RoPE by length': (dict(model_type='llama', rope_parameters=LONG), 'longrope'),
}


@pytest.mark.slow
def test_models_without_sequence_parallelism_are_refused(tmp_path):
    (tmp_path / 'models.json').write_text(json.dumps({n: {**TINY, **options} for n, (options, _) in MODELS.items()}))
    codes, outs = run_processes(tmp_path, PARITY_CHECK_WORKER, [tmp_path / 'models.json'])
    assert codes == [0, 0], outs[0][-3000:]
    results = [json.loads(out.splitlines()[-1]) for out in outs]
    assert results[0] == results[1]
    for name, (_, refusal) in MODELS.items():
        expected = 'accepted' if refusal is None else refusal
        assert expected in results[0][name], (name, results[0][name])
        assert (
            refusal is None
            or 'set strategy.sequence_parallel_size=1' in results[0][name]
            or 'sizes that' in results[0][name]
        )


@pytest.mark.parametrize(('size', 'devices'), [(2, 1), (2, 3), (4, 2)])
def test_sizes_that_do_not_divide_the_devices_are_refused(size, devices):
    with pytest.raises(ConfigError, match=f'sequence_parallel_size={size} does not divide'):
        check_devices(size, devices)


def test_the_error_for_one_process_shows_how_to_start_two(make_config, xtune):
    code, _, err = xtune('train', make_config(), '--cfg-options', 'strategy.sequence_parallel_size=2')
    assert code == 2 and 'NPROC_PER_NODE=2' in err


class NumberedSamples:
    """A store of samples of 1 to 9 tokens."""

    def ids(self, index):
        return np.arange(100 * index, 100 * index + 1 + index % 9)

    def spans(self, index):
        return np.array([[1, 1 + index % 9]])

    def place(self, index):
        return f'row {index}'


@pytest.mark.parametrize('concatenated', [False, True])
@pytest.mark.parametrize('sequences', [[[3]], [[4, 6], [1]], [[8, 7, 5], [2, 3]], []])
def test_shards_concatenate_to_the_full_sequences(sequences, concatenated):
    store = NumberedSamples()
    token_ranges = [np.array([[i, 0, len(store.ids(i))] for i in row]) for row in sequences]
    full = collate(store, token_ranges, 9999, concatenated)
    shards = [collate(store, token_ranges, 9999, concatenated, SequenceShard(rank, 4)) for rank in range(4)]
    seq_len = full.input_ids.shape[1]
    for name in ('input_ids', 'targets', 'position_ids'):
        concatenated_shards = torch.cat([getattr(shard, name) for shard in shards], dim=1)
        assert concatenated_shards.shape[1] == -(-seq_len // 4) * 4
        expected = getattr(full, name)
        expected = torch.arange(seq_len).expand(len(concatenated_shards), -1) if expected is None else expected
        assert torch.equal(concatenated_shards[:, :seq_len], expected), name
    assert all(torch.equal(shard.full_position_ids, shards[0].full_position_ids) for shard in shards)
    assert torch.equal(torch.cat([shard.position_ids for shard in shards], dim=1), shards[0].full_position_ids)
    assert sum(shard.num_targets for shard in shards) == full.num_targets
    assert sum(shard.num_tokens for shard in shards) == full.num_tokens


def test_ranks_of_a_group_share_their_micro_batches():
    shares = [RankShard.of_rank(rank, 4, 2) for rank in range(4)]
    assert [share.select([10, 11, 12], 0) for share in shares] == [[10, 12], [10, 12], [11, 0], [11, 0]]
    assert [share.sequence.slice(6) for share in shares] == [slice(0, 3), slice(3, 6)] * 2
