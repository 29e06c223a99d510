"""tools/benchmark_peers.py: real runs of xtune and of the bare loop, its cases and its table."""

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
    return tool('peer_benchmark.cases').Case('tiny', 'lora', 64, 'none', 'xtune', 2, 7)


def run(tool, folder, arguments):
    """Return the exit code of the tool, and the runs in benchmark.json."""
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(folder), *arguments.split()])
    return stopped.value.code, json.loads((folder / 'benchmark.json').read_text('utf-8'))['runs']


SMALL = '--models tiny --methods lora --lengths 16 --contenders xtune bare --steps 3 --batch 2'


@pytest.mark.slow
def test_runs_are_compared_and_resumed(tool, tmp_path):
    code, (xtune_run, bare) = run(tool, tmp_path, f'{SMALL} --checkpointing none')
    page = (tmp_path / 'benchmark.md').read_text('utf-8')
    assert code == 0, page
    assert min(one[name] for one in (xtune_run, bare) for name in ('speed', 'memory', 'last_loss')) > 0
    assert (
        0 < xtune_run['first_step'] < xtune_run['seconds']
        and xtune_run['checkpointed'] == bare['checkpointed'] == '0 of 3'
    )
    assert xtune_run['xtune_to_it'] == 1 and bare['xtune_to_it'] == xtune_run['speed'] / bare['speed']
    assert '| tiny | lora | 16 | none (0 of 3) | bare |' in page

    code, resumed = run(tool, tmp_path, f'{SMALL} --checkpointing none all --minutes 0 --resume')
    assert code == 0 and resumed[:2] == [xtune_run, bare]
    assert [row['problem'][:7] for row in resumed[2:]] == ['not run'] * 2


@pytest.mark.slow
def test_xtune_and_the_bare_loop_do_the_same_work(tool, case, tmp_path, xtune):
    """Runs the code of the benchmark processes in this process."""
    code, rows = run(tool, tmp_path, f'{SMALL} --checkpointing none --minutes 0')
    assert code == 0 and [row['problem'][:7] for row in rows] == ['not run'] * 2
    run_case, losses = tool('peer_benchmark.run_case'), {}
    for name in ('bare', 'xtune'):
        run_folder = tmp_path / name
        (run_folder / 'run').mkdir(parents=True)
        one = replace(case, contender=name, length=16, steps=3)
        command = run_case.command(one, tmp_path, run_folder, 'python')
        if name == 'xtune':
            assert xtune(*command[3:])[0] == 130  # interrupted by its hook
        else:
            tool(command[2]).main(json.loads(command[3]))
        record = json.loads((run_folder / 'result.json').read_text('utf-8'))
        losses[name] = record['losses']
        assert len(record['ends']) == len(record['losses']) == 3 and record['gib'] > 0
    assert losses['bare'] == pytest.approx(losses['xtune'], abs=0.15)  # the order of sequences differs
    assert losses['bare'][0] == pytest.approx(6.24, abs=0.15)  # ln 512
    assert not list(tmp_path.rglob('*.pth'))


def test_a_timeout_is_a_row(tool, case, tmp_path):
    bare = replace(case, contender='bare')
    result = tool('peer_benchmark.run_case').run(bare, tmp_path, 0.01, sys.executable, cold=True)
    assert result.problem.startswith('timeout') and result.seconds < 10


def test_a_peer_runs_only_supported_work(tool):
    cases = tool('peer_benchmark.cases').make_cases(
        {'tiny': ['fp8_lora', 'lora']}, [64], ['auto', 'all'], ['xtune', 'bare', 'trl'], 1, 2
    )
    work = [(case.method, case.checkpointing, case.contender) for case in cases]
    xtune_based = [(m, w, name) for m in ('fp8_lora', 'lora') for w in ('auto', 'all') for name in ('xtune', 'bare')]
    assert work == [*xtune_based, ('lora', 'all', 'trl')] and len({case.name for case in cases}) == len(cases)


def test_default_cases_have_one_bare_run_per_model_and_skip_missing_peers(tool, monkeypatch, capsys):
    benchmark = tool('benchmark_peers')
    args = benchmark.parse_arguments(['folder'])
    args.python = {'trl': sys.executable}
    monkeypatch.setattr(benchmark.run_case, 'is_installed', lambda name, python: name != 'unsloth')
    cases = benchmark.requested_cases(args)
    assert 'unsloth: ' in capsys.readouterr().out
    bare = [case for case in cases if case.contender == 'bare']
    assert [(c.model, c.method, c.checkpointing) for c in bare] == [
        ('llama3_8b', 'lora', 'none'),
        ('qwen2_5_1_5b', 'lora', 'none'),
    ]
    assert sum(case.contender == 'xtune' for case in cases) == 9


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('--contenders trl', 'none of trl is installed'),
        ('--contenders llamafactory --methods fp8_lora', 'none of llamafactory supports these --methods'),
    ],
)
def test_contenders_that_cannot_run_are_an_error(tool, monkeypatch, tmp_path, capsys, arguments, message):
    benchmark = tool('benchmark_peers')
    monkeypatch.setattr(benchmark.run_case, 'is_installed', lambda name, python: name != 'trl')
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([str(tmp_path), *arguments.split()])
    assert stopped.value.code == 2 and message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_missing_package_is_not_installed(tool):
    run_case = tool('peer_benchmark.run_case')
    assert run_case.is_installed('bare', sys.executable) and not run_case.is_installed('no_such_peer', sys.executable)


@pytest.mark.parametrize(
    ('log', 'code', 'problem', 'checkpointed'),
    [
        ('torch.OutOfMemoryError: CUDA out of memory. Tried', 1, 'out of memory', ''),
        ('error: out of memory in a step of 4 x 2048 tokens', 2, 'out of memory', ''),
        ('Loading\nValueError: a | b', 1, 'exit code 1; last log line: ValueError: a | b', ''),
        ('', None, 'timeout; last log line: none', ''),
        ('memory     activation checkpointing in 2 of 3 layers', -9, 'exit code -9; last log line: memory', '2 of 3'),
    ],
)
def test_a_failed_process_has_a_reason(tool, case, tmp_path, log, code, problem, checkpointed):
    (tmp_path / 'log.txt').write_text(log, encoding='utf-8')
    result = tool('peer_benchmark.run_case').read_result(case, tmp_path, code, 0.0, 1.0)
    assert result.problem.startswith(problem) and result.checkpointed == checkpointed and not result.speed
    assert tool('peer_benchmark.cases').Result.from_json(json.loads(result.to_json())) == result


def test_speed_is_the_median_after_warmup_and_checkpointed_layers_are_the_last_logged(tool, case, tmp_path):
    ends = [110.0, 120.0, 130.0, 140.0, 150.0, 151.0, 153.0]
    lines = ['activation checkpointing in 0 of 3 layers']
    lines += ['note: out of memory; retrying the step with 2 of 3 layers checkpointed', '']
    (tmp_path / 'log.txt').write_text('\n'.join(lines), encoding='utf-8')
    record = dict(ends=ends, losses=[6.0, 5.0], gib=3.5)
    (tmp_path / 'result.json').write_text(json.dumps(record), encoding='utf-8')
    result = tool('peer_benchmark.run_case').read_result(case, tmp_path, 130, 100.0, 60.0)
    assert result.speed == 2 * 64 / 1.5 and result.first_step == 10 and result.checkpointed == '2 of 3'
    assert (result.memory, result.first_loss, result.last_loss, result.problem) == (3.5, 6.0, 5.0, '')


def test_the_step_timer_writes_one_line_after_the_last_step(tool, tmp_path):
    timer = tool('peer_benchmark.step_timer').StepTimer(tmp_path / 'result.json', 2)
    assert not timer.add(2.0) and not list(tmp_path.iterdir())
    assert timer.add(1.0)
    record = json.loads((tmp_path / 'result.json').read_text('utf-8'))
    assert record['losses'] == [2.0, 1.0] and record['ends'] == sorted(record['ends']) and record['gib'] > 0


def test_the_ratio_is_to_xtune_for_the_same_work(tool, case):
    cases, report = tool('peer_benchmark.cases'), tool('peer_benchmark.report')
    results = [
        cases.Result(case, speed=120.0, memory=2.0, first_loss=6.0, last_loss=5.0, first_step=9.0),
        cases.Result(replace(case, contender='trl'), speed=100.0),
        cases.Result(replace(case, contender='trl', checkpointing='all'), speed=90.0),
        cases.Result(replace(case, contender='unsloth'), problem='exit code 1; last log line: a | b'),
    ]
    lines = report.results_table(results).splitlines()[2:]
    assert lines[0] == '| tiny | lora | 64 | none | xtune | 120 | 2.0 | 1.000 | 6.0000 | 5.0000 | 9.0 |'
    assert '| trl | 100 | 0.0 | 1.200 |' in lines[1] and '| trl | 90 | 0.0 | - |' in lines[2]
    assert '**exit code 1; last log line: a / b**' in lines[3]
    assert {line.count('|') for line in report.results_table(results).splitlines()} == {12}


@pytest.mark.parametrize(
    ('model', 'parameters', 'type_'),
    [
        ('llama3_8b', 8.03e9, 'llama'),
        ('qwen2_5_1_5b', 1.544e9, 'qwen2'),
        ('gemma_like', 1.0e9, 'gemma3_text'),
        ('moe', 1.9e9, 'mixtral'),
    ],
)
def test_shapes_have_the_size_of_their_model_and_the_lora_layers_of_xtune(tool, model, parameters, type_):
    shapes = tool('peer_benchmark.model_shapes')
    config = AutoConfig.for_model(**{'model_type': 'llama', **shapes.SHAPES[model]})
    with torch.device('meta'):
        llm = AutoModelForCausalLM.from_config(config)
    assert llm.config.model_type == type_ and llm.num_parameters() == pytest.approx(parameters, rel=0.03)
    lora = LoraConfig(target_modules='all-linear')
    resolve_targets(llm, lora)
    targets = lora.target_modules
    if targets == 'all-linear':
        names = (name for name, module in llm.named_modules() if isinstance(module, torch.nn.Linear))
        targets = {name.rpartition('.')[2] for name in names} - {'lm_head'}
    assert set(shapes.target_modules(model)) == targets and has_experts(llm) == (model == 'moe')
    if model == 'gemma_like':
        assert config.layer_types.count('full_attention') == 4 and config.sliding_window == 512


def test_training_scripts_of_peers_do_not_import_xtune(tool):
    """A peer may run in an environment without it."""
    for name in ('step_timer', 'hf_trainer', 'train_trl', 'train_llamafactory', 'train_unsloth', '__init__'):
        tree = ast.parse((TOOLS / 'peer_benchmark' / f'{name}.py').read_text('utf-8'))
        imported = [getattr(node, 'module', '') or '' for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not any(
            one.partition('.')[0] in ('xtune', 'common', 'device_benchmark', 'mmengine') for one in imported
        ), name


def test_llamafactory_has_the_same_work(tool, tmp_path):
    work = dict(folder=str(tmp_path), model='m', method='qlora', length=64, batch=2, steps=3, checkpointing='none')
    options = tool('peer_benchmark.train_llamafactory').yaml_settings(work | dict(targets=['q_proj', 'v_proj']))
    assert (options['lora_rank'], options['lora_target'], options['quantization_bit']) == (16, 'q_proj,v_proj', 4)
    assert options['disable_gradient_checkpointing'] and options['per_device_train_batch_size'] == 2
    full = tool('peer_benchmark.train_llamafactory').yaml_settings(work | dict(method='full', checkpointing='all'))
    assert full['finetuning_type'] == 'full' and not full['disable_gradient_checkpointing']
    assert not {name for name in full if name.startswith('lora') or name == 'quantization_bit'}


NO_RUN = '--models tiny --methods lora --lengths 16 --contenders bare --checkpointing none --steps 3 --minutes 0'


def test_a_folder_that_is_not_writable_is_refused(tool, tmp_path, capsys):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path / 'file' / 'folder'), *NO_RUN.split()])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and str(tmp_path / 'file' / 'folder') in message


@pytest.mark.parametrize('line', ['{"case": {}}', '[]', '{"speed": 1.0', '7'])
def test_an_invalid_results_file_is_refused(tool, tmp_path, capsys, line):
    (tmp_path / 'results.jsonl').write_text(line + '\n', encoding='utf-8')
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path), *NO_RUN.split(), '--resume'])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and 'results.jsonl ' in message


def test_results_of_an_earlier_call_are_not_overwritten(tool, tmp_path, capsys):
    (tmp_path / 'results.jsonl').write_text('', encoding='utf-8')
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').main([str(tmp_path), *NO_RUN.split()])
    assert stopped.value.code == 2 and '--resume' in capsys.readouterr().err


def test_an_interrupted_call_is_resumed(tool, tmp_path, capsys, monkeypatch):
    benchmark, arguments = (
        tool('benchmark_peers'),
        [str(tmp_path), *NO_RUN.split()[:-2], '--checkpointing', 'none', 'all'],
    )
    monkeypatch.setattr(benchmark, 'make_models_and_rows', lambda args, folder: dict(device='CPU', torch='2'))
    result_class, started = tool('peer_benchmark.cases').Result, []

    def run(case, *_):
        started.append(case.checkpointing)
        if started == ['none', 'all']:
            raise KeyboardInterrupt
        return result_class(case, speed=10.0)

    monkeypatch.setattr(benchmark.run_case, 'run', run)
    codes = []
    for resume in ([], ['--resume']):
        with pytest.raises(SystemExit) as stopped:
            benchmark.main([*arguments, *resume])
        codes.append(stopped.value.code)
        with (tmp_path / 'results.jsonl').open('a', encoding='utf-8') as file:
            file.write('{"case": {"model"')  # an incomplete line, like after a full disk
    assert codes == [130, 0] and started == ['none', 'all', 'all'] and '--resume continues' in capsys.readouterr().out
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
def test_invalid_arguments_are_refused(tool, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_peers').parse_arguments(['folder', *arguments])
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err
