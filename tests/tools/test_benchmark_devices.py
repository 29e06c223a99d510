"""tools/benchmark_devices.py: a real run on one process and on two, and what its tables say about others."""

import json

import pytest


@pytest.mark.slow
def test_one_process_and_two_train_alike_and_save_nothing(tool, tmp_path):
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


def test_the_default_cases_share_one_run_on_one_device_and_end_with_the_whole_depth(tool):
    found = tool('devices.runs').cases(tool('benchmark_devices').CASES, [1, 2], layers=32, one_layers=9)
    assert [case.name for case in found] == [
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


def test_the_depth_on_one_device_follows_from_its_memory(tool):
    material = tool('devices.material')
    fits = [material.depth_that_fits(material.EIGHT_B, gb * 1e9, 8192) for gb in (10, 80, 141, 1000)]
    assert fits[0] == 1 < fits[1] < fits[2] < fits[3] == 32
    layer, ends = material.parameters(material.EIGHT_B)
    assert 32 * layer + ends == pytest.approx(8.03e9, rel=0.001)


@pytest.mark.parametrize(
    ('gpus', 'devices', 'tiny', 'said'),
    [(0, 2, False, 'add --model tiny'), (1, 2, True, 'has 1 GPUs'), (0, 2, True, ''), (2, 2, False, '')],
)
def test_a_machine_that_is_too_small_is_refused(tool, gpus, devices, tiny, said):
    text = tool('common.material').refusal(gpus, devices, tiny)
    assert said in text and bool(said) == bool(text)


def test_the_table_compares_with_the_first_run_of_the_same_method_and_depth(tool):
    runs, report = tool('devices.runs'), tool('devices.report')
    found = [
        runs.Result(runs.Case('full', 'one_device', 1, 9), 100.0, 10.0, (2.0, 1.0), (1.0, 1.0)),
        runs.Result(runs.Case('full', 'zero3', 2, 9), 80.0, 6.0, (2.0, 1.01), (1.1, 1.0)),
        runs.Result(runs.Case('full', 'zero3', 2, 32), 40.0, 9.0, (3.0, 1.0), (1.0, 1.0)),
        runs.Result(runs.Case('full', 'fsdp2', 2, 32), problem='exit code 1 after 0 steps; its last words: a | b'),
    ]
    rows = report.table(found).splitlines()[2:]
    assert rows[1] == '| full | zero3 | 2 | 9 | 80 | 80% | 6.0 | 2.0000 | 1.0e-02, 1.0e-01 |'
    assert rows[2] == '| full | zero3 | 2 | 32 | 40 | - | 9.0 | 3.0000 | 0.0e+00, 0.0e+00 |'
    assert '**exit code 1 after 0 steps; its last words: a / b**' in rows[3]
    assert {row.count('|') for row in report.table(found).splitlines()} == {10}


@pytest.mark.parametrize(('code', 'why'), [(1, 'exit code 1'), (None, 'took too long'), (130, 'exit code 130')])
def test_a_run_without_its_steps_is_a_failure_with_its_last_words(tool, tmp_path, code, why):
    runs = tool('devices.runs')
    (tmp_path / 'log.txt').write_text('so far\nout of memory\n', encoding='utf-8')
    result = runs.read(runs.Case('lora', 'ddp', 2, 3), tmp_path, code, 1.0, steps=3)
    assert result.problem == f'{why} after 0 steps; its last words: out of memory'


@pytest.mark.parametrize(
    'arguments',
    [['--devices', '2', '3'], ['--cases', 'dpo:ddp'], ['--cases', 'lora'], ['--cases', 'lora:ddpp']],
    ids=lambda a: a[0] + a[1],
)
def test_arguments_that_make_no_sense_are_refused(tool, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        tool('benchmark_devices').arguments(['folder', *arguments])
    assert stopped.value.code == 2 and arguments[0] in capsys.readouterr().err
