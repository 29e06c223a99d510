"""tools/plan_memory.py: its parameters are those of real models, and slices go where the strategy puts them."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'plan_memory.py'


@pytest.fixture(scope='module')
def plan():
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location('plan_memory', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['plan_memory'] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules['plan_memory']


def test_the_parameters_are_those_of_the_model(plan, tiny_model):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = json.loads((tiny_model / 'config.json').read_text('utf-8'))
    layer, _, ends = plan.parameters(shape)
    norms = sum(p.numel() for name, p in model.named_parameters() if 'norm' in name)
    assert shape['num_hidden_layers'] * layer + ends == sum(p.numel() for p in model.parameters()) - norms


def test_an_adapter_has_the_parameters_that_peft_makes(plan, tiny_model):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shape = json.loads((tiny_model / 'config.json').read_text('utf-8'))
    llm = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=4, target_modules='all-linear'))
    trained = sum(p.numel() for p in llm.parameters() if p.requires_grad)
    assert trained == shape['num_hidden_layers'] * plan.parameters(shape)[1] * 4


@pytest.mark.parametrize(('method', 'bytes_each'), [('full', 20.0), ('lora', 2.0), ('qlora', 0.55)])
def test_slices_are_divided_by_the_devices_and_move_to_the_host_with_offload(plan, method, bytes_each):
    def need(gpus, offload=False):
        return plan.need(method, plan.LLAMA_70B, plan.Machine(gpus, 80, offload))

    layer, _, ends = plan.parameters(plan.LLAMA_70B)
    assert 80 * layer + ends == pytest.approx(70.55e9, rel=0.001)
    slices = (need(2).device - need(4).device) * 4 / plan.SLACK  # a half less a quarter
    assert slices == pytest.approx(bytes_each * 70.55, rel=0.15)
    kept = slices * 16 / 20 if method == 'full' else slices  # the optimizer step's values are not kept
    assert need(8).host == 0 and need(8, True).host == pytest.approx(kept, rel=1e-6)
    assert need(16, True).host == pytest.approx(kept / 2, rel=1e-6)  # two hosts
    assert need(8, True).device == need(2, True).device < need(16).device


def test_the_formula_agrees_with_the_peaks_that_were_measured(plan):
    peaks = json.loads((TOOL.parent / 'devices' / 'layers_70b.json').read_text('utf-8'))['peaks']
    assert len(peaks) == 16 and max(one['layers'] for one in peaks) == 32
    for one in peaks:
        machine = plan.Machine(2, 141, one['strategy'].endswith('_offload'))
        found = plan.need(one['method'], plan.LLAMA_70B | dict(num_hidden_layers=one['layers']), machine)
        assert (found.device - plan.CONTEXT) / plan.SLACK * 1e9 / 2**30 == pytest.approx(one['gib'], rel=0.04), one


def test_the_table_is_bold_where_it_fits(plan):
    lines = plan.table(machines=[plan.Machine(8, 80, False), plan.Machine(8, 80, True)]).splitlines()[2:]
    for line in lines:
        for cell in line.split('|')[2:-1]:
            figure = cell.split('+')[0].strip()
            assert ('**' in figure) == (float(figure.strip('*').replace(',', '')) <= 80), line
    assert '**' in lines[0] and '+' in lines[1] and '+' not in lines[0]


@pytest.mark.parametrize(('name', 'value'), [('--gpus', '0'), ('--gpus', '-2'), ('--gb', '0')])
def test_machines_that_cannot_be_are_refused(plan, capsys, name, value):
    with pytest.raises(SystemExit) as stopped:
        plan.arguments([name, value])
    assert stopped.value.code == 2 and f'{name} {value}: give a whole number of at least 1' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (None, 'config.json: No such file or directory; give the config.json of a model'),
        ('{"hidden', 'is no JSON'),
        ('[1]', 'is no config of a model'),
        ('{"hidden_size": 64}', 'has no intermediate_size, num_hidden_layers'),
        (json.dumps(dict(num_local_experts=8)), 'of a mixture of experts (num_local_experts is 8)'),
    ],
)
def test_models_that_are_not_counted_are_refused(plan, tmp_path, capsys, content, said):
    path = tmp_path / 'config.json'
    if content is not None:
        shape = plan.LLAMA_70B if 'experts' in content else {}
        path.write_text(json.dumps(shape | json.loads(content)) if shape else content, encoding='utf-8')
    with pytest.raises(SystemExit) as stopped:
        plan.arguments([str(path)])
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_folder_has_the_config_in_it(plan, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(plan.LLAMA_70B | dict(num_experts=1)), encoding='utf-8')
    assert plan.arguments([str(tmp_path)]).shape == plan.LLAMA_70B | dict(num_experts=1)
