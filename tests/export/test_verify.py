"""Exports are compared with the probe logits of the training, and a fault injected on the way is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from xtune.hf_format.probe_logits import FILE, Probe, ProbeInfo, logits_of, probe_ids

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, tiny_model):
    """Return a function that trains with a method once a module: (config, checkpoint)."""
    import contextlib
    import io
    import os

    from xtune.cli import main
    from xtune.config.flatten import flatten
    from xtune.config.presets import find

    made = {}

    def train(method='lora', **options):
        key = (method, *sorted(options.items()))
        if key in made:
            return made[key]
        place = tmp_path_factory.mktemp(method)
        rows = [dict(instruction=f'Count {n}.', input='', output=f'{n}, {n + 1}, {n + 2}.') for n in range(12)]
        (place / 'rows.json').write_text(json.dumps(rows))
        preset = {'full': 'smollm2_135m_full_selfcog_e2'}.get(method, f'smollm2_135m_{method}_alpaca_e1')
        values = {
            'base_model': str(tiny_model),
            'train_dataset.path': str(place / 'rows.json'),
            'work_dir': str(place / 'run'),
            'max_length': 64,
            'schedule.batch_size': 2,
            'schedule.gradient_accumulation_steps': 1,
            'schedule.max_steps': 2,
            'schedule.lr_schedule': 'constant',
            'optimizer.lr': 5e-2 if method != 'full' else 1e-2,
            'chat_samples.every_steps': None,
            'checkpoint.export_adapter': False,
            'data.num_proc': 1,
            'log.plot': False,
            'log.tensorboard': False,
            **options,
        }
        if method == 'full':
            values |= {'train_dataset.map_fn': 'alpaca', 'train_dataset.map_args': None}
        config = place / 'run.py'
        config.write_text(flatten(find(preset), values))
        os.environ['XTUNE_CACHE'] = str(place / 'cache')
        with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
            main(['train', str(config)])
        assert ended.value.code == 0
        made[key] = config, place / 'run' / 'iter_2.pth'
        return made[key]

    return train


def report_of(folder):
    return json.loads((folder / 'verification.json').read_text())


@pytest.mark.parametrize('method', ['lora', 'full'])
def test_every_verb_compares_with_the_training(method, trained, xtune, tiny_model, tmp_path):
    config, checkpoint = trained(method)
    folder = tmp_path / 'hf'
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, folder)
    assert code == 0 and ' training step 2' in out, err
    assert report_of(folder)['relative_error'] < 1e-3 and (folder / FILE).is_file()
    if method == 'lora':
        code, out, err = xtune('convert', 'merge', tiny_model, folder, tmp_path / 'merged')
        assert code == 0, err
        folder = tmp_path / 'merged'
        assert report_of(folder)['relative_error'] < 1e-2
    code, out, err = xtune('convert', 'split', folder, tmp_path / 'small', '--max-shard-size', '1MB')
    assert code == 0, err
    assert report_of(tmp_path / 'small')['training_step'] == 2


def spoil(path, factor=3.0):
    """Change one tensor of a safetensors file, as a conversion bug would."""
    tensors = load_file(path)
    name = next(n for n in sorted(tensors) if 'down_proj' in n and ('lora_B' in n or n.endswith('.weight')))
    tensors[name] = tensors[name] * factor + 0.05
    save_file(tensors, path, metadata={'format': 'pt'})


def test_a_fault_in_the_adapter_is_refused_by_merge(trained, xtune, tiny_model, tmp_path):
    config, checkpoint = trained('lora')
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')[0] == 0
    spoil(tmp_path / 'hf' / 'adapter_model.safetensors')
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged')
    assert code == 2 and 'relative error' in err and not (tmp_path / 'merged').exists()
    code, out, _ = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged', '--no-verify')
    assert code == 0 and 'not compared' in out


def test_a_fault_in_a_model_folder_is_refused_by_split(trained, xtune, tmp_path):
    config, checkpoint = trained('full')
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')[0] == 0
    spoil(tmp_path / 'hf' / 'model.safetensors')
    code, _, err = xtune('convert', 'split', tmp_path / 'hf', tmp_path / 'small')
    assert code == 2 and 'relative error' in err and not (tmp_path / 'small').exists()


@pytest.mark.parametrize('method', ['lora', 'full'])
def test_a_fault_between_checkpoint_and_export_is_refused(method, trained, xtune, tmp_path):
    config, checkpoint = trained(method)
    content = torch.load(checkpoint, weights_only=True)
    name = next(n for n in content['state_dict'] if 'down_proj' in n and ('lora_B' in n or method == 'full'))
    content['state_dict'][name] += 0.05
    spoiled = tmp_path / 'iter_2.pth'
    torch.save(content, spoiled)
    code, _, err = xtune('convert', 'pth_to_hf', config, spoiled, tmp_path / 'hf')
    assert code == 2 and 'relative error' in err and not (tmp_path / 'hf').exists()


def test_an_adapter_on_another_base_of_the_same_shape_is_refused(trained, xtune, tiny_model, tmp_path):
    config, checkpoint = trained('lora')
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')[0] == 0
    other = tmp_path / 'other'
    shutil.copytree(tiny_model, other)
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(other).config).save_pretrained(other)
    code, _, err = xtune('convert', 'merge', other, tmp_path / 'hf', tmp_path / 'merged')
    assert code == 2 and 'relative error' in err


def test_a_qlora_adapter_is_compared_on_an_equally_quantized_base(trained, xtune, tiny_model, tmp_path):
    config, checkpoint = trained('qlora')
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')[0] == 0
    assert report_of(tmp_path / 'hf')['relative_error'] < 0.01
    assert xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged')[0] == 0
    merged = report_of(tmp_path / 'merged')  # the base is the original one now
    assert merged['training_base'] == 'nf4' and 0.01 < merged['relative_error'] <= merged['max_relative_error']


def test_a_pre_quantized_base_is_loaded_as_stored(trained, xtune, tiny_model, tmp_path_factory, tmp_path):
    pytest.importorskip('bitsandbytes')
    from transformers import AutoTokenizer, BitsAndBytesConfig

    base = tmp_path_factory.mktemp('stored') / 'nf4'
    form = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=form).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    config, checkpoint = trained('lora', base_model=str(base))
    code, out, err = xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')
    assert code == 0, err
    assert report_of(tmp_path / 'hf')['relative_error'] < 0.01 < report_of(tmp_path / 'hf')['max_relative_error'] < 0.2


def test_the_comparison_uses_the_quantization_config_of_the_run(trained, xtune, tmp_path):
    config, checkpoint = trained('qlora', **{'quantization.bnb_4bit_use_double_quant': False})
    assert xtune('convert', 'pth_to_hf', config, checkpoint, tmp_path / 'hf')[0] == 0
    assert report_of(tmp_path / 'hf')['relative_error'] < 1e-3


def test_a_checkpoint_without_probe_logits_is_not_compared(trained, xtune, tmp_path):
    config, checkpoint = trained('lora')
    content = torch.load(checkpoint, weights_only=True)
    del content['probe'], content['meta']['export']['vocabulary']
    torch.save(content, tmp_path / 'old.pth')
    code, out, err = xtune('convert', 'pth_to_hf', config, tmp_path / 'old.pth', tmp_path / 'hf')
    assert code == 0 and 'no probe logits' in out, err


def test_a_probe_is_read_as_written_and_measures_differences(tiny_model, tmp_path):
    llm = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = probe_ids([torch.arange(5, 5 + n).numpy() for n in (1, 7, 190, 12)])
    assert [len(one) for one in ids] == [7, 128, 12]
    Probe.of(ids, logits_of(llm, ids, CPU), ProbeInfo(3, 'float32', None)).write(tmp_path)
    probe = Probe.read(tmp_path)
    assert probe.about == ProbeInfo(3, 'float32', None) and probe.log_probs_TK.shape[0] == 83
    same = probe.compare(logits_of(llm, probe.ids, CPU))
    assert same['mean_kl'] < 1e-9 and same['relative_error'] < 1e-6
    with torch.no_grad():
        for parameter in llm.model.layers[0].parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    far = probe.compare(logits_of(llm, probe.ids, CPU))
    assert far['relative_error'] > 0.1
    masked = [logits.clone() for logits in logits_of(llm, probe.ids, CPU)]
    for logits in masked:
        logits[:, 100:200] = torch.finfo(torch.float32).min  # as models do that never say some tokens
    own = Probe.of(ids, masked, ProbeInfo(3, 'float32', None))
    assert own.compare(masked)['relative_error'] == 0 and own.compare([m * 0.5 for m in masked])['relative_error'] > 0.1
    nan = [logits * float('nan') for logits in logits_of(llm, probe.ids, CPU)]
    assert probe.compare(nan) == dict(mean_kl=float('inf'), relative_error=float('inf'))
