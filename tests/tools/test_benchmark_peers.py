"""tools/benchmark_peers.py: a real run of xtune and of the bare loop, and what the tables say about others."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from xtune.methods.lora_targets import resolve_targets
from xtune.utils.experts import has_experts

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def case(tool):
    """A run of xtune."""
    return tool('peers.cases').Case('tiny', 'lora', 64, 'none', 'xtune', 2, 7)


def run(tool, folder, arguments):
    """Return the exit code of the tool, and the runs it wrote."""
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(folder), *arguments.split()])
    return stopped.value.code, json.loads((folder / 'benchmark.json').read_text('utf-8'))['runs']


SMALL = '--models tiny --methods lora --lengths 16 --contenders xtune bare --steps 3 --batch 2'


@pytest.mark.slow
def test_runs_of_their_own_are_compared_and_kept(tool, tmp_path):
    code, (ours, bare) = run(tool, tmp_path, f'{SMALL} --checkpointing none')
    page = (tmp_path / 'benchmark.md').read_text('utf-8')
    assert code == 0, page
    assert min(one[name] for one in (ours, bare) for name in ('speed', 'memory', 'last_loss')) > 0
    assert 0 < ours['first_step'] < ours['seconds'] and ours['recomputed'] == bare['recomputed'] == '0 of 3'
    assert ours['xtune_to_it'] == 1 and bare['xtune_to_it'] == ours['speed'] / bare['speed']
    assert '| tiny | lora | 16 | none (0 of 3) | bare |' in page

    code, again = run(tool, tmp_path, f'{SMALL} --checkpointing none all --minutes 0 --resume')
    assert code == 0 and again[:2] == [ours, bare]
    assert [row['problem'][:7] for row in again[2:]] == ['not run'] * 2


@pytest.mark.slow
def test_xtune_and_the_bare_loop_do_the_same_work(tool, case, tmp_path, xtune):
    """What the processes of a benchmark do, in this one."""
    code, rows = run(tool, tmp_path, f'{SMALL} --checkpointing none --minutes 0')
    assert code == 0 and [row['problem'][:7] for row in rows] == ['not run'] * 2
    runs, losses = tool('peers.runs'), {}
    for name in ('bare', 'xtune'):
        place = tmp_path / name
        (place / 'run').mkdir(parents=True)
        one = replace(case, contender=name, length=16, steps=3)
        command = runs.command(one, tmp_path, place, 'python')
        if name == 'xtune':
            assert xtune(*command[3:])[0] == 130  # ended by its hook
        else:
            tool(command[2]).main(json.loads(command[3]))
        found = json.loads((place / 'result.json').read_text('utf-8'))
        losses[name] = found['losses']
        assert len(found['ends']) == len(found['losses']) == 3 and found['gib'] > 0
    assert losses['bare'] == pytest.approx(losses['xtune'], abs=0.15)  # rows come in another order
    assert losses['bare'][0] == pytest.approx(6.24, abs=0.15)  # ln 512
    assert not list(tmp_path.rglob('*.pth'))


def test_a_run_that_takes_too_long_is_a_row(tool, case, tmp_path):
    result = tool('peers.runs').run(replace(case, contender='bare'), tmp_path, 0.01, sys.executable, cold=True)
    assert result.problem.startswith('took too long') and result.seconds < 10


def test_a_peer_runs_only_what_it_can(tool):
    found = tool('peers.cases').cases(
        {'tiny': ['fp8_lora', 'lora']}, [64], ['auto', 'all'], ['xtune', 'bare', 'trl'], 1, 2
    )
    done = [(case.method, case.checkpointing, case.contender) for case in found]
    ours = [(m, w, name) for m in ('fp8_lora', 'lora') for w in ('auto', 'all') for name in ('xtune', 'bare')]
    assert done == [*ours, ('lora', 'all', 'trl')] and len({case.name for case in found}) == len(found)


def test_by_default_the_bare_loop_does_little_and_what_is_not_installed_is_named(tool, monkeypatch, capsys):
    benchmark = tool('benchmark_peers')
    args = benchmark.arguments(['folder'])
    args.python = {'trl': sys.executable}
    monkeypatch.setattr(benchmark.runs, 'installed', lambda name, python: name != 'unsloth')
    found = benchmark.chosen(args)
    assert 'unsloth: ' in capsys.readouterr().out
    bare = [case for case in found if case.contender == 'bare']
    assert [(c.model, c.method, c.checkpointing) for c in bare] == [
        ('llama3_8b', 'lora', 'none'),
        ('qwen2_5_1_5b', 'lora', 'none'),
    ]
    assert sum(case.contender == 'xtune' for case in found) == 9


@pytest.mark.parametrize(
    ('named', 'why'),
    [
        ('--contenders trl', 'none of trl is installed'),
        ('--contenders llamafactory --methods fp8_lora', 'none of llamafactory can do these --methods'),
    ],
)
def test_contenders_that_cannot_run_are_an_error(tool, monkeypatch, tmp_path, capsys, named, why):
    benchmark = tool('benchmark_peers')
    monkeypatch.setattr(benchmark.runs, 'installed', lambda name, python: name != 'trl')
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([str(tmp_path), *named.split()])
    assert stopped.value.code == 2 and why in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_python_lacks_is_not_installed(tool):
    runs = tool('peers.runs')
    assert runs.installed('bare', sys.executable) and not runs.installed('no_such_peer', sys.executable)


@pytest.mark.parametrize(
    ('said', 'code', 'problem', 'recomputed'),
    [
        ('torch.OutOfMemoryError: CUDA out of memory. Tried', 1, 'out of memory', ''),
        ('error: out of memory in a step of 4 x 2048 tokens', 2, 'out of memory', ''),
        ('Loading\nValueError: a | b', 1, 'exit code 1; its last words: ValueError: a | b', ''),
        ('', None, 'took too long; its last words: nothing', ''),
        ('memory     activation checkpointing in 2 of 3 layers', -9, 'exit code -9; its last words: memory', '2 of 3'),
    ],
)
def test_a_process_without_a_result_is_a_row_with_its_reason(tool, case, tmp_path, said, code, problem, recomputed):
    (tmp_path / 'log.txt').write_text(said, encoding='utf-8')
    result = tool('peers.runs').read(case, tmp_path, code, 0.0, 1.0)
    assert result.problem.startswith(problem) and result.recomputed == recomputed and not result.speed
    assert tool('peers.cases').Result.of(json.loads(result.to_json())) == result


def test_speed_is_the_median_after_the_first_steps_and_layers_are_those_at_last(tool, case, tmp_path):
    ends = [110.0, 120.0, 130.0, 140.0, 150.0, 151.0, 153.0]
    lines = ['activation checkpointing in 0 of 3 layers']
    lines += ['note: out of memory; retrying the step with 2 of 3 layers checkpointed', '']
    (tmp_path / 'log.txt').write_text('\n'.join(lines), encoding='utf-8')
    found = dict(ends=ends, losses=[6.0, 5.0], gib=3.5)
    (tmp_path / 'result.json').write_text(json.dumps(found), encoding='utf-8')
    result = tool('peers.runs').read(case, tmp_path, 130, 100.0, 60.0)
    assert result.speed == 2 * 64 / 1.5 and result.first_step == 10 and result.recomputed == '2 of 3'
    assert (result.memory, result.first_loss, result.last_loss, result.problem) == (3.5, 6.0, 5.0, '')


def test_ticks_write_one_whole_line_after_the_last_step(tool, tmp_path):
    ticks = tool('peers.ticks').Ticks(tmp_path / 'result.json', 2)
    assert not ticks.add(2.0) and not list(tmp_path.iterdir())
    assert ticks.add(1.0)
    found = json.loads((tmp_path / 'result.json').read_text('utf-8'))
    assert found['losses'] == [2.0, 1.0] and found['ends'] == sorted(found['ends']) and found['gib'] > 0


def test_the_ratio_is_to_xtune_at_the_same_work(tool, case):
    cases, report = tool('peers.cases'), tool('peers.report')
    found = [
        cases.Result(case, speed=120.0, memory=2.0, first_loss=6.0, last_loss=5.0, first_step=9.0),
        cases.Result(replace(case, contender='trl'), speed=100.0),
        cases.Result(replace(case, contender='trl', checkpointing='all'), speed=90.0),
        cases.Result(replace(case, contender='unsloth'), problem='exit code 1; its last words: a | b'),
    ]
    lines = report.table(found).splitlines()[2:]
    assert lines[0] == '| tiny | lora | 64 | none | xtune | 120 | 2.0 | 1.000 | 6.0000 | 5.0000 | 9.0 |'
    assert '| trl | 100 | 0.0 | 1.200 |' in lines[1] and '| trl | 90 | 0.0 | - |' in lines[2]
    assert '**exit code 1; its last words: a / b**' in lines[3]
    assert {line.count('|') for line in report.table(found).splitlines()} == {12}


@pytest.mark.parametrize(
    ('model', 'parameters', 'type_'),
    [
        ('llama3_8b', 8.03e9, 'llama'),
        ('qwen2_5_1_5b', 1.544e9, 'qwen2'),
        ('gemma_like', 1.0e9, 'gemma3_text'),
        ('moe', 1.9e9, 'mixtral'),
    ],
)
def test_shapes_are_of_their_size_and_adapters_reach_what_xtune_reaches(tool, model, parameters, type_):
    shapes = tool('peers.shapes')
    config = AutoConfig.for_model(**{'model_type': 'llama', **shapes.SHAPES[model]})
    with torch.device('meta'):
        llm = AutoModelForCausalLM.from_config(config)
    assert llm.config.model_type == type_ and llm.num_parameters() == pytest.approx(parameters, rel=0.03)
    wanted = LoraConfig(target_modules='all-linear')
    resolve_targets(llm, wanted)
    reached = wanted.target_modules
    if reached == 'all-linear':
        names = (name for name, module in llm.named_modules() if isinstance(module, torch.nn.Linear))
        reached = {name.rpartition('.')[2] for name in names} - {'lm_head'}
    assert set(shapes.targets(model)) == reached and has_experts(llm) == (model == 'moe')
    if model == 'gemma_like':
        assert config.layer_types.count('full_attention') == 4 and config.sliding_window == 512


def test_peers_need_no_xtune(tool):
    """They may live in an environment that does not have it."""
    for name in ('ticks', 'trainer', 'with_trl', 'with_llamafactory', 'with_unsloth', '__init__'):
        tree = ast.parse((TOOLS / 'peers' / f'{name}.py').read_text('utf-8'))
        imported = [getattr(node, 'module', '') or '' for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not any(one.partition('.')[0] in ('xtune', 'common', 'devices', 'mmengine') for one in imported), name


def test_llamafactory_gets_what_makes_the_work_equal(tool, tmp_path):
    work = dict(folder=str(tmp_path), model='m', method='qlora', length=64, batch=2, steps=3, checkpointing='none')
    options = tool('peers.with_llamafactory').options(work | dict(targets=['q_proj', 'v_proj']))
    assert (options['lora_rank'], options['lora_target'], options['quantization_bit']) == (16, 'q_proj,v_proj', 4)
    assert options['disable_gradient_checkpointing'] and options['per_device_train_batch_size'] == 2
    full = tool('peers.with_llamafactory').options(work | dict(method='full', checkpointing='all'))
    assert full['finetuning_type'] == 'full' and not full['disable_gradient_checkpointing']
    assert not {name for name in full if name.startswith('lora') or name == 'quantization_bit'}


NO_RUN = '--models tiny --methods lora --lengths 16 --contenders bare --checkpointing none --steps 3 --minutes 0'


def test_a_folder_that_cannot_be_written_is_named(tool, tmp_path, capsys):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path / 'file' / 'folder'), *NO_RUN.split()])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and 'folder ' in said


@pytest.mark.parametrize('line', ['{"case": {}}', '[]', '{"speed": 1.0', '7'])
def test_results_that_are_none_are_named(tool, tmp_path, capsys, line):
    (tmp_path / 'results.jsonl').write_text(line + '\n', encoding='utf-8')
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path), *NO_RUN.split(), '--resume'])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and 'results.jsonl ' in said


def test_results_of_an_earlier_call_are_not_written_over(tool, tmp_path, capsys):
    (tmp_path / 'results.jsonl').write_text('', encoding='utf-8')
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path), *NO_RUN.split()])
    assert stopped.value.code == 2 and '--resume' in capsys.readouterr().err


def test_an_interrupted_call_keeps_what_was_done_and_goes_on_with_the_rest(tool, tmp_path, capsys, monkeypatch):
    benchmark, given = tool('benchmark_peers'), [str(tmp_path), *NO_RUN.split()[:-2], '--checkpointing', 'none', 'all']
    monkeypatch.setattr(benchmark, 'make', lambda args, folder: dict(device='CPU', torch='2'))
    done, asked = tool('peers.cases').Result, []

    def run(case, *_):
        asked.append(case.checkpointing)
        if asked == ['none', 'all']:
            raise KeyboardInterrupt
        return done(case, speed=10.0)

    monkeypatch.setattr(benchmark.runs, 'run', run)
    codes = []
    for more in ([], ['--resume']):
        with pytest.raises(SystemExit) as stopped:
            benchmark.main([*given, *more])
        codes.append(stopped.value.code)
        with (tmp_path / 'results.jsonl').open('a', encoding='utf-8') as file:
            file.write('{"case": {"model"')  # of a write that a full disk ended
    assert codes == [130, 0] and asked == ['none', 'all', 'all'] and '--resume goes on' in capsys.readouterr().out
    assert len(json.loads((tmp_path / 'benchmark.json').read_text('utf-8'))['runs']) == 2


@pytest.mark.parametrize(
    'arguments',
    [
        ['--models', 'gpt'],
        ['--methods', 'dpo'],
        ['--python', 'trl'],
        ['--python', f'peer={sys.executable}'],
        ['--steps', '1'],
        ['--timeout', '0'],
        ['--lengths', '64', '4'],
        ['--minutes', '-1'],
        ['--minutes', 'nan'],
    ],
    ids=lambda a: '='.join(a)[:20],
)
def test_arguments_that_make_no_sense_are_refused(tool, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').arguments(['folder', *arguments])
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err
