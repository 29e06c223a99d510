"""The same runs on a CUDA device: run with `-m gpu`."""

import json

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]
OFF = {'speed.varlen_attention': False}
INT8 = {'type': 'transformers.BitsAndBytesConfig', 'load_in_8bit': True}


def losses(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return [row['loss'] for row in rows if 'loss' in row]


@pytest.mark.parametrize(
    ('method', 'options'),
    [
        ('lora', {}),
        ('qlora', {}),
        ('full', {}),
        ('lora', {'quantization': INT8}),
        ('lora', {'precision': 'fp32', 'activation_checkpointing': 'none'}),
        ('qlora', {'optimizer.type': 'bitsandbytes.optim.PagedAdamW32bit'}),
        ('lora', {'optimizer.type': 'bitsandbytes.optim.PagedAdamW8bit'}),
    ],
)
def test_runs_and_resumes(method, options, make_config, xtune, tmp_path):
    config = make_config(method, **{'chat_samples.every_steps': 3, **options})
    code, out, err = xtune('train', config)
    assert code == 0, err
    assert torch.cuda.get_device_name() in out
    assert ('bf16' in out) == (options.get('precision') != 'fp32')
    whole = losses(tmp_path / 'run')
    assert np.isfinite(whole).all()
    (tmp_path / 'run' / 'epoch_2.pth').unlink()
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'resuming from' in out, err
    np.testing.assert_allclose(losses(tmp_path / 'run'), whole, rtol=2e-3)


@pytest.mark.parametrize('method', ['lora', 'full'])
def test_compiled_packed_runs_use_varlen_attention(method, make_config, xtune, tmp_path):
    plain = {'speed.compile': False}
    for name, speed in (('on', {}), ('cast', {**plain, 'speed.master_weights': False}), ('off', {**plain, **OFF})):
        options = {} if method == 'full' else {'lora.lora_dropout': 0.0}
        options |= {'chat_samples.every_steps': 3, 'val_dataset': 4, 'optimizer.lr': 1e-4, **speed}
        code, out, err = xtune('train', make_config(method, name, **options))
        assert code == 0, err
        assert ('varlen attention' in out) == (name != 'off')
        assert ('torch.compile' in out) == (name == 'on')
    for name in ('on', 'cast'):
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / 'off'), rtol=5e-3)


def test_merged_model_answers_in_4_bits(make_config, xtune, tiny_model, tmp_path):
    config = make_config('qlora')
    xtune('train', config)
    assert xtune('convert', 'pth_to_hf', config, tmp_path / 'run' / 'epoch_2.pth', tmp_path / 'hf')[0] == 0
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged', '--device', 'cuda')
    assert code == 0, err
    for bits in ((), ('--bits', '4'), ('--bits', '8')):
        code, _, err = xtune('chat', tmp_path / 'merged', *bits, '--prompt', 'Hi', '--max-new-tokens', '3')
        assert code == 0, err


GIB = 2**30


@pytest.fixture(scope='module')
def deep_model(tmp_path_factory, tokenizer):
    """A folder with a random Llama whose activations weigh more than its weights: 0.1 GiB of them in bf16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=512, intermediate_size=1536, num_attention_heads=8, num_key_value_heads=8)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_hidden_layers=16, bos_token_id=1, eos_token_id=2, pad_token_id=2, **sizes
    )
    folder = tmp_path_factory.mktemp('models') / 'deep'
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def long_run(make_config, deep_model, tmp_path):
    """Return a function that writes a run of `deep_model` on rows of 2,048 tokens; it keeps some 0.3 GiB a layer."""
    text = ' '.join(f'{number} is a number.' for number in range(900))
    path = tmp_path / 'long.json'
    path.write_text(json.dumps([{'instruction': f'Count, {n}.', 'input': '', 'output': text} for n in range(16)]))

    def make(name, **options):
        small = {
            'base_model': str(deep_model),
            'train_dataset.path': str(path),
            'max_length': 2048,
            'schedule.batch_size': 4,
            'schedule.gradient_accumulation_steps': 2,
            'lora.lora_dropout': 0.0,
            'checkpoint.every_steps': None,
        }
        return make_config(name=name, **{**small, **options})

    return make


def peaks(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return [row['memory_gib'] for row in rows if 'memory_gib' in row]


@pytest.fixture
def allowed():
    """Return a function that limits this process to so many GiB."""
    total = torch.cuda.get_device_properties(0).total_memory

    def limit(gib):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(gib * GIB / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize('compiled', [False, True])
def test_auto_checkpoints_the_fewest_layers_that_fit(compiled, long_run, xtune, tmp_path, allowed):
    # cuBLAS keeps memory for the stream on which layers are first recorded, which would count in later runs alone.
    options = {'speed.compile': compiled, 'speed.cuda_graphs': False, 'log.plot': False}
    code, out, err = xtune('train', long_run('roomy', **options))
    assert code == 0 and 'activation checkpointing in 0 of 16 layers' in out, out + err
    assert xtune('train', long_run('none', activation_checkpointing='none', **options))[0] == 0
    assert xtune('train', long_run('all', activation_checkpointing='all', **options))[0] == 0
    roomy, none, most = (max(peaks(tmp_path / name)) for name in ('roomy', 'none', 'all'))
    assert roomy == pytest.approx(none, rel=0.02) and most < 0.6 * none
    planned = float(out.split(' GiB planned')[0].split('; ')[-1].split(' of ')[0])
    assert planned == pytest.approx(none, rel=0.05, abs=0.15)

    limit = (none + most) / 2
    allowed(limit)
    code, out, err = xtune('train', long_run('tight', **options))
    assert code == 0 and 'out of memory' not in out, out + err
    count = int(out.split('activation checkpointing in ')[1].split(' of ')[0])
    assert 2 <= count <= 14 and max(peaks(tmp_path / 'tight')) <= limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert xtune('train', long_run('fixed', activation_checkpointing=count, **options))[0] == 0
    # Not to the last bit: flash attention adds up the gradients of its queries in no fixed order.
    np.testing.assert_allclose(losses(tmp_path / 'fixed'), losses(tmp_path / 'tight'), rtol=1e-3)


def test_step_is_retried_after_out_of_memory(long_run, xtune, tmp_path, allowed):
    before = torch.cuda.memory_allocated()
    assert xtune('train', long_run('whole', activation_checkpointing='all'))[0] == 0
    assert xtune('train', long_run('none', activation_checkpointing='none'))[0] == 0
    # A run leaves nothing but the workspaces of libraries: a second one in the process has all the memory.
    assert torch.cuda.memory_allocated() < before + 0.1 * GIB
    most, none = (max(peaks(tmp_path / name)) for name in ('whole', 'none'))
    allowed(most * 1.15 + 0.1)
    code, out, err = xtune('train', long_run('none', activation_checkpointing='none'))
    assert code == 0 and 'out of memory' in out, out + err
    np.testing.assert_allclose(losses(tmp_path / 'none'), losses(tmp_path / 'whole'), rtol=2e-3)
    allowed(most * 0.5)
    code, out, err = xtune('train', long_run('small', activation_checkpointing='all'))
    assert code == 2 and 'out of memory' in err and 'schedule.batch_size' in err and 'Traceback' not in err


@pytest.fixture
def deterministic():
    """Options of a run whose kernels add up in a fixed order, which torch then does in the whole process."""
    yield {'runner': {'randomness': dict(deterministic=True)}}
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('compiled', [False, True])
def test_offload_uses_less_memory_with_equal_losses(compiled, long_run, xtune, tmp_path, deterministic):
    options = {'speed.compile': compiled, **deterministic}
    for name in ('all', 'offload'):
        torch.use_deterministic_algorithms(False)  # until the run itself wants it: trials before have no such kernels
        code, out, err = xtune('train', long_run(name, activation_checkpointing=name, **options))
        assert code == 0, out + err
        assert torch.are_deterministic_algorithms_enabled() and 'varlen attention' in out
    assert 'offloaded to CPU' in out
    assert losses(tmp_path / 'offload') == losses(tmp_path / 'all')
    # 16 layers x 8,192 tokens x 512 in bf16 are 0.125 GiB
    assert max(peaks(tmp_path / 'offload')) < max(peaks(tmp_path / 'all')) - 0.08
