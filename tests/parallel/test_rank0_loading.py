"""A host holds one copy of a sharded model, for any number of ranks."""

import json
import os
import shutil

import pytest
from pairs import case, run_pair

from xtune.config.flatten import flatten
from xtune.config.presets import find

# A loader that adds a hook, so that its model cannot be rebuilt from class and config.
UNKNOWN_LOADER = """
from transformers import LlamaForCausalLM

def load(pretrained_model_name_or_path, **arguments):
    model = LlamaForCausalLM.from_pretrained(pretrained_model_name_or_path, **arguments)
    model.register_forward_pre_hook(lambda *_: None)
    return model
"""
# Method and strategy of runs with the big model, for -m slow.
BIG = [('lora', 'fsdp2'), ('lora', 'zero3'), ('qlora', 'fsdp2')]


@pytest.fixture(scope='module')
def big_model(tmp_path_factory, tokenizer):
    """A folder with a random Llama of 151 MB in float32, in tensors of 13 MB at most."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=16384,
        num_hidden_layers=11,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp('models') / 'big'
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def reports(tmp_path_factory, big_model, tiny_model, request):
    """The reports of two ranks: of the runs in BIG, of an unknown and of the usual loader, and of a broken folder."""
    folder = tmp_path_factory.mktemp('loading')
    every = any(item.get_closest_marker('slow') for item in request.session.items if item.path == request.path)
    big = BIG if every else []
    rows = [{'instruction': f'Say {n}.', 'input': '', 'output': f'{n}.'} for n in range(8)]
    (folder / 'rows.json').write_text(json.dumps(rows))
    (folder / 'odd.py').write_text(UNKNOWN_LOADER)
    broken = shutil.copytree(tiny_model, folder / 'broken')
    whole = (broken / 'model.safetensors').read_bytes()
    (broken / 'model.safetensors').write_bytes(whole[: len(whole) // 2])

    small = {
        'base_model': str(tiny_model),
        'train_dataset.path': str(folder / 'rows.json'),
        'val_dataset': None,
        'max_length': 32,
        'schedule.batch_size': 1,
        'schedule.gradient_accumulation_steps': 1,
        'schedule.max_steps': 2,
        'checkpoint.every_epochs': None,
        'chat_samples.every_steps': None,
        'log.every_steps': 1,
        'log.plot': False,
        'log.tensorboard': False,
        'data.num_proc': 1,
        'lora.lora_dropout': 0.0,
        'lora.r': 4,
    }
    for method in ('lora', 'qlora'):
        text = flatten(find(f'smollm2_135m_{method}_alpaca_e1'), small)
        (folder / f'{method}.py').write_text(text)

    def run(name, method, strategy, **options):
        options |= {'strategy.name': strategy, 'work_dir': str(folder / name)}
        return case(folder / f'{method}.py', **options)

    def loading(method, strategy, model):
        return run('loaded', method, strategy, base_model=str(model), only_load=True)

    cases = {
        # Imports take memory too, so the strategies are loaded once before they are measured.
        **{f'warm {method} {strategy}': loading(method, strategy, tiny_model) for method, strategy in big},
        **{f'{method} {strategy}': loading(method, strategy, big_model) for method, strategy in big},
        'broken': run('broken', 'lora', 'fsdp2', base_model=str(broken)),
    }
    if every:
        cases['usual'] = run('usual', 'lora', 'fsdp2')
        cases['odd'] = run('odd', 'lora', 'fsdp2', **{'llm.type': 'odd.load'})
    # Memory is given back when a tensor is freed, so that nothing is measured in what was left before.
    path = os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])
    found = run_pair(folder / 'two', list(cases.values()), PYTHONPATH=path, MALLOC_MMAP_THRESHOLD_='65536')
    return folder, dict(zip(cases, zip(*found, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'strategy'), BIG)
def test_the_second_rank_never_has_the_full_model(reports, big_model, method, strategy):
    _, found = reports
    size = (big_model / 'model.safetensors').stat().st_size
    first, second = found[f'{method} {strategy}']
    assert first['error'] is second['error'] is None
    assert first['grown'] > 0.5 * size  # what is measured is seen
    assert second['grown'] < 0.75 * size


@pytest.mark.slow
def test_a_model_that_fails_on_meta_is_loaded_on_each_rank(reports):
    folder, found = reports
    assert [report['error'] for report in found['odd']] == [None, None]
    log = (folder / 'two' / 'rank_0.log').read_text()
    assert 'meta-device init failed (only llm.type=load knows' in log
    assert losses(folder / 'odd') == losses(folder / 'usual')


@pytest.mark.slow
def test_all_ranks_report_why_rank_0_could_not_load(reports):
    _, found = reports
    first, second = (report['error'] for report in found['broken'])
    assert first == second and 'model.safetensors' in first


def losses(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return [row['loss'] for row in rows if 'loss' in row]
