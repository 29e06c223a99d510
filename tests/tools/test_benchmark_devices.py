"""tools/benchmark_devices.py: real runs with one and two ranks, its cases and its table."""

import json

import pytest


@pytest.mark.slow
def test_one_and_two_ranks_have_the_same_losses_and_save_nothing(tool, tmp_path):
    arguments = '--model tiny --layers 2 --cases lora:ddp --steps 3 --batch 1 --length 16 --timeout 300'.split()
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_devices').main([str(tmp_path), *arguments])
    page = (tmp_path / 'benchmark.md').read_text('utf-8')
    assert stopped.value.code == 0, page
    one, two = json.loads((tmp_path / 'benchmark.json').read_text('utf-8'))['runs']
    assert (one['devices'], two['devices'], len(one['losses']), len(two['losses'])) == (1, 2, 3, 3)
    assert two['losses'] == pytest.approx(one['losses'], rel=1e-5) and two['loss_difference'] < 1e-5
    assert one['losses'][0] == pytest.approx(6.24, abs=0.3)  # ln 512
    assert one['speed'] > 0 and one['memory'] > 0 and two['efficiency'] == two['speed'] / one['speed']
    assert not list(tmp_path.rglob('*.pth')) and '| lora | ddp | 2 | 2 |' in page


def test_default_cases_share_runs_on_one_device_and_include_all_layers_on_two(tool):
    run_case, pairs = tool('device_benchmark.run_case'), tool('benchmark_devices').CASES
    cases = run_case.make_cases(pairs, [1, 2], layers=32, single_device_layers=9)
    assert [case.name for case in cases] == [
        'lora_one_device_1x_32l',
        'lora_ddp_2x_32l',
        'qlora_one_device_1x_32l',
        'qlora_fsdp2_2x_32l',
        'full_one_device_1x_9l',
        'full_zero3_2x_9l',
        'full_zero3_2x_32l',
        'full_fsdp2_2x_9l',
        'full_fsdp2_2x_32l',
    ]


def test_the_number_of_layers_on_one_device_follows_from_its_memory(tool):
    inputs = tool('device_benchmark.make_inputs')
    layers = [inputs.layers_that_fit(inputs.LLAMA3_8B, gb * 1e9, 8192) for gb in (10, 80, 141, 1000)]
    assert layers[0] == 1 < layers[1] < layers[2] < layers[3] == 32
    per_layer, embeddings = inputs.count_parameters(inputs.LLAMA3_8B)
    assert 32 * per_layer + embeddings == pytest.approx(8.03e9, rel=0.001)


@pytest.mark.parametrize(
    ('gpus', 'devices', 'tiny', 'message'),
    [(0, 2, False, 'add --model tiny'), (1, 2, True, 'has 1 GPUs'), (0, 2, True, ''), (2, 2, False, '')],
)
def test_a_machine_with_too_few_gpus_is_refused(tool, gpus, devices, tiny, message):
    text = tool('common.synthetic_inputs').gpu_problem(gpus, devices, tiny)
    assert message in text and bool(message) == bool(text)


def test_the_table_compares_with_the_first_run_of_the_same_method_and_layers(tool):
    run_case, report = tool('device_benchmark.run_case'), tool('device_benchmark.report')
    results = [
        run_case.Result(run_case.Case('full', 'one_device', 1, 9), 100.0, 10.0, (2.0, 1.0), (1.0, 1.0)),
        run_case.Result(run_case.Case('full', 'zero3', 2, 9), 80.0, 6.0, (2.0, 1.01), (1.1, 1.0)),
        run_case.Result(run_case.Case('full', 'zero3', 2, 32), 40.0, 9.0, (3.0, 1.0), (1.0, 1.0)),
        run_case.Result(
            run_case.Case('full', 'fsdp2', 2, 32), problem='exit code 1 after 0 steps; last log line: a | b'
        ),
    ]
    rows = report.results_table(results).splitlines()[2:]
    assert rows[1] == '| full | zero3 | 2 | 9 | 80 | 80% | 6.0 | 2.0000 | 1.0e-02, 1.0e-01 |'
    assert rows[2] == '| full | zero3 | 2 | 32 | 40 | - | 9.0 | 3.0000 | 0.0e+00, 0.0e+00 |'
    assert '**exit code 1 after 0 steps; last log line: a / b**' in rows[3]
    assert {row.count('|') for row in report.results_table(results).splitlines()} == {10}


@pytest.mark.parametrize(('code', 'reason'), [(1, 'exit code 1'), (None, 'timeout'), (130, 'exit code 130')])
def test_a_run_with_missing_steps_failed(tool, tmp_path, code, reason):
    run_case = tool('device_benchmark.run_case')
    (tmp_path / 'log.txt').write_text('step 1\nout of memory\n', encoding='utf-8')
    result = run_case.read_result(run_case.Case('lora', 'ddp', 2, 3), tmp_path, code, 1.0, steps=3)
    assert result.problem == f'{reason} after 0 steps; last log line: out of memory'


@pytest.mark.parametrize(
    'arguments',
    [['--devices', '2', '3'], ['--cases', 'dpo:ddp'], ['--cases', 'lora'], ['--cases', 'lora:ddpp']],
    ids=lambda a: a[0] + a[1],
)
def test_invalid_arguments_are_refused(tool, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_devices').parse_arguments(['folder', *arguments])
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err
