"""`load_from` and `--resume` refuse settings with which the same weights would have other outputs."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtune.engine import checkpoint_io

QUICK = {'checkpoint.every_epochs': None, 'log.plot': False, 'log.tensorboard': False}
# One step with learning rate 0: the checkpoint contains the initial weights.
NO_UPDATE = {'optimizer.lr': 0.0, 'schedule.max_steps': 1, **QUICK}


def differing_tensors(first, second):
    assert set(first) == set(second)
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope='module')
def cached_runs(tmp_path_factory):
    """A folder of runs that several tests start from."""
    return tmp_path_factory.mktemp('cached_runs')


@pytest.fixture
def first_run(cached_runs, make_config, xtune, tmp_path):
    """Return a function that trains two steps into the folder `first` and returns the content of its checkpoint."""

    def run(method='lora'):
        if not (cached_runs / method).exists():
            init = {'lora.init_lora_weights': 'gaussian'} if method == 'lora' else {}
            code, _, err = xtune('train', make_config(method, 'first', **{'schedule.max_steps': 2, **QUICK, **init}))
            assert code == 0, err
            (tmp_path / 'first').rename(cached_runs / method)
        shutil.copytree(cached_runs / method, tmp_path / 'first')
        return checkpoint_io.load(tmp_path / 'first' / 'iter_2.pth')

    return run


def test_adapter_is_trained_further_and_exported(first_run, make_config, xtune, tiny_model, tmp_path):
    before = first_run()
    pth, folder = tmp_path / 'first' / 'iter_2.pth', tmp_path / 'first' / 'iter_2_hf'
    moved = shutil.copytree(tiny_model, tmp_path / 'moved')
    plain = shutil.copytree(folder, tmp_path / 'plain')  # as written by peft
    for path in [*plain.glob('token*'), *plain.glob('*.jinja')]:
        path.unlink()
    for name, origin, base in (('pth', pth, tiny_model), ('hf', folder, tiny_model), ('peft', plain, moved)):
        # With another seed, a newly initialized adapter would differ. Its initialization no longer matters.
        config = make_config('lora', name, load_from=str(origin), base_model=str(base), seed=7, **NO_UPDATE)
        code, out, err = xtune('train', config)
        assert code == 0, err
        assert f'loaded from {origin}' in out and 'start at step 0' in out and 'warning' not in out
        assert (name == 'pth') == ('(step 2 of run first)' in out)
        assert (name == 'peft') == (f'{moved} ' in out.replace(str(config), ''))
        after = checkpoint_io.load(tmp_path / name / 'iter_1.pth')
        assert after['meta']['iter'] == 1 and not differing_tensors(before['state_dict'], after['state_dict'])
        assert {state['step'].item() for state in after['optimizer'].values()} == {1.0}
        rows = [json.loads(line) for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        assert [row['step'] for row in rows] == [1]
    code, _, err = xtune('convert', 'pth_to_hf', config, tmp_path / 'peft' / 'iter_1.pth', tmp_path / 'out')
    assert code == 0, err
    tensors = [load_file(path / 'adapter_model.safetensors') for path in (folder, tmp_path / 'out')]
    assert not differing_tensors(*tensors)


def test_full_weights_are_trained_further_and_resume_does_not_load_them_again(first_run, make_config, xtune, tmp_path):
    before = first_run('full')
    make = partial(make_config, 'full', 'second', load_from=str(tmp_path / 'first' / 'iter_2.pth'))
    assert xtune('train', make(**NO_UPDATE))[0] == 0
    after = checkpoint_io.load(tmp_path / 'second' / 'iter_1.pth')
    assert not differing_tensors(before['state_dict'], after['state_dict'])
    shutil.rmtree(tmp_path / 'first')  # a resumed run no longer needs it
    code, out, err = xtune('train', make(**{**NO_UPDATE, 'schedule.max_steps': 2}), '--resume')
    assert code == 0 and 'loaded from' not in out, err
    assert checkpoint_io.load(tmp_path / 'second' / 'iter_2.pth')['optimizer'][0]['step'] == 2


def test_mismatch_is_refused_before_data_are_prepared(first_run, make_config, xtune, tiny_model, tmp_path):
    first_run()
    pth, folder = tmp_path / 'first' / 'iter_2.pth', tmp_path / 'first' / 'iter_2_hf'
    other = shutil.copytree(tiny_model, tmp_path / 'other')
    state = load_file(other / 'model.safetensors')
    save_file({name: tensor * 2 for name, tensor in state.items()}, other / 'model.safetensors', {'format': 'pt'})

    def refused(*arguments, method='lora', name='first', **options):
        code, out, err = xtune(
            'train', make_config(method, name, **{'schedule.max_steps': 2, **QUICK, **options}), *arguments
        )
        assert code == 2 and 'samples' not in out and 'Traceback' not in err, out + err
        return err

    lora = {'lora.lora_alpha': 7, 'lora.use_rslora': True, 'lora.use_dora': True, 'lora.alpha_pattern': {'q_proj': 3}}
    rope = {'llm.rope_parameters': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 10000.0}}
    eight = {'quantization': {'type': 'transformers.BitsAndBytesConfig', 'load_in_8bit': True}}
    for how in ({}, {'load_from': str(pth), 'name': 'second'}, {'load_from': str(folder), 'name': 'second'}):
        resume = () if how else ('--resume',)
        err = refused(*resume, **how, **lora)
        assert all(f'- {name}' in err for name in lora) and 'now 7' in err
        err = refused(*resume, **how, base_model=str(other))
        assert f"'{tiny_model}' then, '{other}' now" in err
        assert 'an adapter' in refused(*resume, **how, method='full')
        pissa = refused(*resume, **how, **{'lora.init_lora_weights': 'pissa'})
        assert "lora.init_lora_weights: was 'gaussian', now 'pissa'" in pissa
        assert 'lora.r: ' in refused(*resume, **how, **{'lora.r': 3})
    err = refused('--resume', **rope, **eight)
    assert 'llm.rope_parameters.factor: was None, now 8.0' in err and '- quantization' in err
    refused_paths = {
        'no_such.pth': 'does not exist',
        str(tiny_model): 'base_model',
        'somebody/adapter': 'hf download',
        str(tmp_path): 'no checkpoint shards',
    }
    for path, what in refused_paths.items():
        assert what in refused(load_from=path, name='second')
    assert '--work-dir' in refused(load_from=str(pth))
    assert f"load_from='{pth}'" in refused('--cfg-options', f'runner.load_from={pth}')


def test_moved_base_and_training_options_are_accepted_with_a_note(first_run, make_config, xtune, tiny_model, tmp_path):
    first_run()
    moved = shutil.copytree(tiny_model, tmp_path / 'moved')
    options = {
        'base_model': str(moved),
        'lora.lora_dropout': 0.0,
        'optimizer.lr': 1e-5,
        'schedule.max_steps': 3,
        **QUICK,
    }
    code, out, err = xtune('train', make_config('lora', 'first', **options), '--resume')
    assert code == 0 and str(moved) in out, err
    folder = tmp_path / 'first' / 'iter_2_hf'
    # The original base no longer exists: its name decides.
    values = json.loads((folder / 'adapter_config.json').read_text())
    for name, wanted in (('/gone/moved', 0), ('/gone/other', 2)):
        (folder / 'adapter_config.json').write_text(json.dumps(values | dict(base_model_name_or_path=name)))
        options = {'base_model': str(moved), 'load_from': str(folder), **NO_UPDATE}
        code, out, err = xtune('train', make_config('lora', 'gone', **options))
        assert code == wanted and (name in (out if wanted == 0 else err))


def test_warning_if_template_or_rope_parameters_differ(first_run, make_config, xtune, tmp_path):
    first_run()
    rope = {'llm.rope_parameters': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 10000.0}}
    options = {'load_from': str(tmp_path / 'first' / 'iter_2.pth'), 'chat_template': 'plain', **rope, **NO_UPDATE}
    code, out, err = xtune('train', make_config('lora', 'second', **options))
    assert code == 0 and out.count('warning: ') == 3, err
    assert 'another chat template' in out and 'llm.rope_parameters.factor: was None, now 8.0' in out
