"""tools/plan_check.py: the limits, the arguments, and the configs of the runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xtune.config.load import load
from xtune.config.wire import wire

TOOLS = Path(__file__).parents[2] / 'tools'


WITHIN_LIMITS = dict(
    name='run', check_limits=True, planned=10.4, counted=9.1, peak=10.0, planned_speed=1100.0, speed=1000.0
)
WITHIN_LIMITS |= dict(upper_bound=False)


def test_values_within_the_limits_pass(tool):
    check = tool('plan_check')
    assert not check.is_wrong(WITHIN_LIMITS) and not check.is_wrong(
        WITHIN_LIMITS | dict(counted=13.9, upper_bound=True)
    )
    cells = ['run', '10.40', '9.10', '10.00', '1.040', '0.910', '1,100', '1,000', '1.100']
    assert check.row(WITHIN_LIMITS) == cells and len(cells) == len(check.COLUMNS)


@pytest.mark.parametrize(
    'wrong',
    [
        dict(planned=10.6),
        dict(planned=None),
        dict(counted=8.9),
        dict(counted=11.1),
        dict(counted=14.1, upper_bound=True),
        dict(peak=None),
        dict(peak=0.0),
        dict(planned_speed=800.0),
        dict(planned_speed=None),
        dict(speed=float('nan')),
    ],
    ids=str,
)
def test_missing_values_and_values_outside_the_limits_fail(tool, wrong):
    check = tool('plan_check')
    assert check.is_wrong(WITHIN_LIMITS | wrong) and len(check.row(WITHIN_LIMITS | wrong)) == len(check.COLUMNS)
    assert not check.is_wrong(WITHIN_LIMITS | wrong | dict(check_limits=False))


@pytest.mark.parametrize(('seconds', 'code', 'reason'), [(0.01, None, 'timeout'), (60, 3, 'exit code 3')])
def test_a_failed_case_is_a_row_with_its_reason(tool, tmp_path, monkeypatch, seconds, code, reason):
    check, cases = tool('plan_check'), tool('plan_check_cases')
    if code is not None:

        def run(command, log, *_, stdout):
            log.touch(), stdout.touch()
            return code

        monkeypatch.setattr(check, 'run_with_timeout', run)
    result = check.outcome(cases.select_cases([0], tiny=True)[0], tmp_path, seconds, tiny=True)
    assert check.row(result) == [result['name'], result['problem']] and result['name'] == 'lora 32k 2 x 128 all'
    assert result['problem'].startswith(f'xtune plan: {reason}; last log line: ') and check.is_wrong(result)


def test_cases_after_a_failed_case_still_run(tool, tmp_path, monkeypatch, capsys):
    check = tool('plan_check')
    monkeypatch.setattr(check, 'make_models', lambda *_: None)
    failed = [True, False]

    def compare(case, *_):
        if failed.pop(0):
            raise check.FailedError('took too long')
        return WITHIN_LIMITS | dict(name=case.name)

    monkeypatch.setattr(check, 'compare', compare)
    with pytest.raises(SystemExit) as stopped:
        check.main([str(tmp_path), '--tiny', '--cases', '0', '1'])
    out = capsys.readouterr().out
    assert stopped.value.code == 1 and '| took too long |' in out and '| 1.040 |' in out
    assert len(json.loads((tmp_path / 'results.json').read_text('utf-8'))) == 2


@pytest.mark.parametrize('number', ['8', '-1'])
def test_an_unknown_case_is_refused(tool, capsys, number):
    with pytest.raises(SystemExit) as stopped:
        tool('plan_check').parse_arguments(['folder', '--cases', number])
    assert stopped.value.code == 2 and f'--cases {number}: give numbers from 0 to 7' in capsys.readouterr().err


def test_without_a_gpu_the_error_suggests_tiny_models(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    with pytest.raises(SystemExit) as stopped:
        tool('plan_check').main([str(tmp_path / 'out')])
    assert stopped.value.code == 2 and 'add --tiny' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_configs_match_their_cases(tool, tmp_path):
    cases = tool('plan_check_cases')
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)
    assert {case.method for case in cases.select_cases(None, tiny=True)} == {'lora', 'qlora', 'full'}
    for case in (*cases.select_cases([0, 2, 6], tiny=True), cases.CASES[7]):
        path = tmp_path / 'run.py'
        path.write_text(cases.config(case, tmp_path), encoding='utf-8')
        job = wire(load(path, {}, check_types=True), 'run')
        assert (job.schedule.batch_size, job.schedule.gradient_accumulation_steps) == (
            case.batch,
            case.accumulation_steps,
        )
        assert (job.values.activation_checkpointing, job.values.max_length) == (case.checkpointing, case.length)
        assert job.speed.compile == case.compile and (job.values.packing != 'none') == case.pack
        assert job.schedule.max_steps == cases.STEPS and job.checkpoint.every_epochs is None
        rows = cases.rows_file(case, tmp_path)
        assert len(rows.read_text('utf-8').splitlines()) >= cases.STEPS * case.batch * case.accumulation_steps


@pytest.mark.slow
def test_tiny_runs_are_planned_and_trained(tmp_path):
    command = [sys.executable, str(TOOLS / 'plan_check.py'), str(tmp_path / 'out'), '--tiny', '--cases', '0']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and '| lora 32k 2 x 128 all |' in done.stdout, done.stderr
    assert (tmp_path / 'out' / 'results.json').is_file()
