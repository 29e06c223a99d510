"""What every listed preset and every part in configs/_base_ must hold; a new row or file is covered too."""

import ast
import importlib.util
import json
import subprocess
import sys
from dataclasses import MISSING

import pytest

from xtune.config.compose import docstring
from xtune.config.flatten import flatten, with_defaults
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load
from xtune.config.model_table import models
from xtune.config.preset_table import ALIASES, SETS
from xtune.config.presets import BASE, ROOT, find, presets, recipe_of, strategies
from xtune.config.sections import SCALARS, SECTIONS
from xtune.config.type_checks import type_problems
from xtune.config.wire import wire
from xtune.templates import ACCEPTED

PARTS = sorted(path for path in BASE.rglob('*.py') if path.stem != '__init__')


def syntax(path):
    return ast.parse(path.read_text(encoding='utf-8'))


def assigned(path):
    return sorted(node.targets[0].id for node in syntax(path).body if isinstance(node, ast.Assign))


@pytest.fixture(scope='module')
def loaded():
    """Each preset's name -> its config; read once, as there are hundreds."""
    return {name: load(find(name)) for name in presets()}


def test_names_are_unique_and_ordered_by_family():
    listed = [(model.name, word) for model in models().values() for word in model.presets.split()]
    assert len(presets()) == sum(len(SETS[word[1:]]) if word.startswith('@') else 1 for _, word in listed)
    assert list(presets()) == sorted(presets(), key=lambda name: (presets()[name].family, name))


@pytest.mark.integration
def test_every_preset_wires(loaded):
    for name, cfg in loaded.items():
        job = wire(cfg, name)
        assert job.name == name and job.values.base_model == cfg.base_model, name
        assert (job.lora is None) == (cfg.lora is None), name
        assert (job.quantization is None) == (cfg.quantization is None), name
        assert job.values.chat_template in ('auto', *ACCEPTED), name
        assert not type_problems(to_plain(cfg)), name


@pytest.mark.integration
def test_every_name_consists_of_the_parts_of_the_preset(loaded):
    for name, cfg in loaded.items():
        recipe, schedule = recipe_of(name), cfg.schedule
        made = f'{recipe.model}_{recipe.method}_{recipe.dataset}_e{schedule.max_epochs}'
        if cfg.data.num_workers == 2 and (schedule.batch_size, schedule.gradient_accumulation_steps) == (8, 1):
            made += '_gpu8'
        assert made == ALIASES.get(name, (name,))[0]
        assert cfg.base_model == models()[recipe.model].base_model


def test_aliases_are_listed_and_explained_in_their_docstring():
    for name, (_, note) in ALIASES.items():
        assert name in presets() and note in docstring(find(name))


def test_presets_leave_out_only_optional_sections(loaded):
    for name, cfg in loaded.items():
        present = to_plain(cfg)
        for key, section in SECTIONS.items():
            optional = SCALARS[key].default is not MISSING if key in SCALARS else section.optional
            assert key in present or optional, f'{name}: {key}'


@pytest.mark.integration
def test_a_flat_copy_has_the_values_of_the_preset(loaded, tmp_path):
    # Presets that differ in the model only are flattened alike.
    one_of_each = {}
    for name in presets():
        recipe = recipe_of(name)
        one_of_each.setdefault((recipe.method, recipe.dataset, str(recipe.options())), name)
    assert len(one_of_each) > 50
    copy = tmp_path / 'copy.py'
    for name in one_of_each.values():
        copy.write_text(flatten(find(name)), encoding='utf-8')
        assert comparable(to_plain(load(copy))) == comparable(with_defaults(to_plain(loaded[name]))), name


def test_the_model_parts_are_written_from_the_table():
    path = ROOT.parent / 'tools' / 'make_model_parts.py'
    spec = importlib.util.spec_from_file_location('make_model_parts', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    outdated = tool.write_parts(check=True)
    assert not outdated, f'run python tools/make_model_parts.py: {[path.name for path in outdated][:5]}'
    assert {path.stem for path in PARTS if path.parent.name == 'models'} == set(models())


@pytest.mark.parametrize('kind', sorted({path.parent.name for path in PARTS}))
def test_parts_are_plain_data(kind):
    for part in (path for path in PARTS if path.parent.name == kind):
        docstring, *body = syntax(part).body
        assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str), part
        for node in body:
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and not any(alias.asname for alias in node.names), ast.unparse(node)
                continue
            assert isinstance(node, ast.Assign) and len(node.targets) == 1, ast.unparse(node)
            assert node.targets[0].id in SECTIONS
            for inner in ast.walk(node.value):
                # dict(...) is the only call, and names are either that or imported
                call = isinstance(inner, ast.Call)
                assert not call or (inner.func.id == 'dict' and not inner.args), ast.unparse(inner)
                assert not isinstance(inner, (ast.BinOp, ast.IfExp, ast.Lambda, ast.comprehension, ast.JoinedStr))


@pytest.mark.parametrize(
    'kind', sorted({part.parent for part in PARTS if part.parent.name != '_base_'}), ids=lambda path: path.name
)
def test_parts_of_one_folder_define_the_same_sections(kind):
    files = [part for part in PARTS if part.parent == kind]
    assert {tuple(assigned(part)) for part in files} == {tuple(assigned(files[0]))}


@pytest.mark.integration
def test_loading_and_flattening_every_preset_imports_no_torch():
    code = """
import sys
from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.type_checks import type_problems
from xtune.config.presets import find, presets
for name in presets():
    flatten(find(name), {'schedule.max_epochs': 5, 'optimizer.lr': 1e-5})  # which loads it and compares the two
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
