"""What every preset and every part below configs/ promises; read from the folder, so that a new file is covered too."""

import ast
import importlib.util
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
from xtune.config.type_checks import type_problems
from xtune.config.validate import SCALARS
from xtune.config.wire import wire
from xtune.templates import ACCEPTED

FILES = sorted(path for path in ROOT.rglob('*.py') if path.stem != '__init__')
PRESETS = [path for path in FILES if '_base_' not in path.parts]
PARTS = [path for path in FILES if '_base_' in path.parts]


# Names that say something else than what they are made of, and the pieces they have.
EXCEPTIONS = {
    'starcoder_qlora_stack_exchange_example': 'starcoder_qlora_stack_exchange_e1',  # an example on 20,000 rows
    'internlm_7b_qlora_oasst1_mmlu_e3': 'internlm_7b_qlora_oasst1_e3',  # MMLU is no training data
}
# A second name of the same preset, which another trainer ran before.
ALIAS = '_hf'


def syntax(path):
    return ast.parse(path.read_text(encoding='utf-8'))


def assigned(path):
    return sorted(node.targets[0].id for node in syntax(path).body if isinstance(node, ast.Assign))


def imported_parts(tree):
    """Return {kind: part} of what a preset imports."""
    bases = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return dict(node.module.removeprefix('_base_.').partition('.')[::2] for node in bases)


@pytest.fixture(scope='module')
def loaded():
    """Each preset's name -> (its syntax, its config); read once, as there are hundreds."""
    return {path.stem: (syntax(path), load(path)) for path in PRESETS}


def test_presets_are_all_found_by_unique_names():
    assert PRESETS and sorted(presets().values()) == PRESETS
    assert len({path.stem for path in PRESETS}) == len(PRESETS)


def test_every_preset_wires(loaded):
    for name, (_, cfg) in loaded.items():
        job = wire(cfg, name)
        assert job.name == name and job.values.base_model == cfg.base_model, name
        assert (job.lora is None) == (cfg.lora is None), name
        assert (job.quantization is None) == (cfg.quantization is None), name
        assert job.values.chat_template in ('auto', *ACCEPTED), name
        assert not type_problems(to_plain(cfg)), name


def test_every_name_says_what_the_preset_is_made_of(loaded):
    wrong = []
    for name, (tree, cfg) in loaded.items():
        parts, schedule = imported_parts(tree), cfg.schedule
        made = f'{parts["models"]}_{parts["methods"]}_{parts["datasets"]}_e{schedule.max_epochs}'
        if cfg.data.num_workers == 2 and (schedule.batch_size, schedule.gradient_accumulation_steps) == (8, 1):
            made += '_gpu8'
        if EXCEPTIONS.get(name, name.removesuffix(ALIAS)) != made:
            wrong.append(f'{name} is {made}')
    assert not wrong and set(EXCEPTIONS) <= set(loaded)


def test_presets_are_short_with_one_read_base_block(loaded):
    for path in PRESETS:
        assert len(path.read_text(encoding='utf-8').splitlines()) <= 20, path.stem
        blocks = [node for node in ast.walk(loaded[path.stem][0]) if isinstance(node, ast.With)]
        # mmengine fails on a second one
        assert [ast.unparse(block.items[0]) for block in blocks] == ['read_base()'], path.stem


def test_presets_leave_out_only_optional_sections(loaded):
    for name, (_, cfg) in loaded.items():
        present = to_plain(cfg)
        for key, section in SECTIONS.items():
            optional = SCALARS[key].default is not MISSING if section is None else section.optional
            assert key in present or optional, f'{name}: {key}'


def test_a_copy_in_one_file_means_the_same_as_the_preset(loaded, tmp_path):
    # Presets that differ in the model only are flattened alike.
    kinds = {}
    for path in PRESETS:
        tree = loaded[path.stem][0]
        parts, changes = imported_parts(tree), [ast.unparse(n) for n in tree.body if not isinstance(n, ast.With)][2:]
        kinds.setdefault((parts['methods'], parts['datasets'], *changes), path)
    assert len(kinds) > 50
    copy = tmp_path / 'copy.py'
    for path in kinds.values():
        copy.write_text(flatten(path), encoding='utf-8')
        assert 'read_base' not in copy.read_text(encoding='utf-8')
        assert comparable(to_plain(load(copy))) == comparable(to_plain(loaded[path.stem][1])), path.stem


def test_the_table_of_presets_is_written(tool):
    left = tool.write(check=True)
    assert not left, f'run python tools/make_presets.py: {[path.name for path in left][:5]}'


def test_no_preset_or_model_part_is_outside_the_table(tool):
    """Add a row to configs/models.tsv: the table is what says which models and presets there are."""
    assert {path.stem for path in PRESETS} == set(tool.preset_names())
    parts = {path.stem for path in PARTS if path.parent.name == 'models'}
    assert parts == {row['name'] for row in tool.models()}


@pytest.fixture(scope='module')
def tool():
    """tools/make_presets.py as a module."""
    spec = importlib.util.spec_from_file_location('make_presets', ROOT.parent / 'tools' / 'make_presets.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
def test_parts_of_one_kind_define_the_same_sections(kind):
    files = [part for part in PARTS if part.parent == kind]
    assert {tuple(assigned(part)) for part in files} == {tuple(assigned(files[0]))}


def test_loading_and_flattening_every_preset_imports_no_torch():
    code = """
import sys
from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.type_checks import type_problems
from xtune.config.presets import presets
for path in presets().values():
    flatten(path, {'schedule.max_epochs': 5, 'optimizer.lr': 1e-5})  # which loads it and compares the two
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
