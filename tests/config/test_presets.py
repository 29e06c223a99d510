"""What every preset and every part below configs/ promises; read from the folder, so that a new file is covered too."""

import ast
import json
import subprocess
import sys
from dataclasses import MISSING

import pytest

from xtune.config.flatten import flatten
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load
from xtune.config.presets import ROOT, presets, strategies
from xtune.config.sections import SECTIONS
from xtune.config.validate import SCALARS
from xtune.config.wire import wire

FILES = sorted(path for path in ROOT.rglob('*.py') if path.stem != '__init__')
PRESETS = [path for path in FILES if '_base_' not in path.parts]
PARTS = [path for path in FILES if '_base_' in path.parts]
each_preset = pytest.mark.parametrize('preset', PRESETS, ids=lambda path: path.stem)


def syntax(path):
    return ast.parse(path.read_text(encoding='utf-8'))


def assigned(path):
    return sorted(node.targets[0].id for node in syntax(path).body if isinstance(node, ast.Assign))


def test_presets_are_all_found_by_unique_names():
    assert PRESETS and sorted(presets().values()) == PRESETS
    assert len({path.stem for path in PRESETS}) == len(PRESETS)


@each_preset
def test_preset_loads_and_wires(preset):
    cfg = load(preset, check_types=True)
    job = wire(cfg, preset.stem)
    assert job.name == preset.stem and job.values.base_model == cfg.base_model
    assert (job.lora is None) == (cfg.lora is None) and (job.quantization is None) == (cfg.quantization is None)


@each_preset
def test_preset_means_the_same_as_its_copy_in_one_file(preset, tmp_path):
    copy = tmp_path / 'copy.py'
    copy.write_text(flatten(preset), encoding='utf-8')
    assert 'read_base' not in copy.read_text(encoding='utf-8')
    assert comparable(to_plain(load(copy))) == comparable(to_plain(load(preset)))


@each_preset
def test_preset_name_says_what_it_is_made_of(preset):
    parts = {}
    for node in ast.walk(syntax(preset)):
        if isinstance(node, ast.ImportFrom) and node.level:
            kind, _, part = node.module.removeprefix('_base_.').partition('.')
            parts[kind] = part
    epochs = load(preset).schedule.max_epochs
    assert preset.stem == f'{parts["models"]}_{parts["methods"]}_{parts["datasets"]}_e{epochs}'


@each_preset
def test_preset_is_short_with_one_read_base_block(preset):
    assert len(preset.read_text(encoding='utf-8').splitlines()) <= 20
    blocks = [node for node in ast.walk(syntax(preset)) if isinstance(node, ast.With)]
    assert [ast.unparse(block.items[0]) for block in blocks] == ['read_base()']  # mmengine fails on a second one


@each_preset
def test_preset_leaves_out_only_optional_sections(preset):
    present = to_plain(load(preset))
    for name, section in SECTIONS.items():
        optional = SCALARS[name].default is not MISSING if section is None else section.optional
        assert name in present or optional, name


@pytest.mark.parametrize('part', PARTS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_part_is_plain_data(part):
    docstring, *body = syntax(part).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)
    for node in body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and not any(alias.asname for alias in node.names), ast.unparse(node)
            continue
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, ast.unparse(node)
        assert node.targets[0].id in SECTIONS
        for inner in ast.walk(node.value):
            # dict(...) is the only call, and names are either that or imported
            assert not isinstance(inner, ast.Call) or (inner.func.id == 'dict' and not inner.args), ast.unparse(inner)
            assert not isinstance(inner, (ast.BinOp, ast.IfExp, ast.Lambda, ast.comprehension, ast.JoinedStr))


@pytest.mark.parametrize(
    'kind', sorted({part.parent for part in PARTS if part.parent.name != '_base_'}), ids=lambda path: path.name
)
def test_parts_of_one_kind_define_the_same_sections(kind):
    files = [part for part in PARTS if part.parent == kind]
    assert {tuple(assigned(part)) for part in files} == {tuple(assigned(files[0]))}


def test_loading_and_flattening_every_preset_imports_no_torch():
    code = """
import sys
from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.presets import presets
for path in presets().values():
    load(path, {'optimizer.lr': 1e-5})
    flatten(path, {'schedule.max_epochs': 5})
print({'torch', 'transformers', 'peft'} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, 'set()'), done.stderr


def test_five_deepspeed_strategies_are_listed(xtune):
    names = ['deepspeed_' + name for name in ('zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload')]
    assert list(strategies()) == names
    code, out, _ = xtune('list-cfg', '-p', 'deepspeed')
    assert code == 0 and out.split()[-5:] == names


@pytest.mark.parametrize('name', strategies())
def test_a_strategy_is_copied_as_deepspeed_json(name, xtune, tmp_path):
    code, _, _ = xtune('copy-cfg', name, tmp_path)
    values = json.loads((tmp_path / f'{name}_copy.json').read_text(encoding='utf-8'))
    assert code == 0 and values['zero_optimization']['stage'] == int(name[len('deepspeed_zero')])
    assert ('offload_optimizer' in values['zero_optimization']) == name.endswith('offload')
