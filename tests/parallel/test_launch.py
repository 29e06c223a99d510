"""The environment variables, the arguments of torchrun, and the selection of the reported failure."""

from types import SimpleNamespace

import pytest

from xtune.errors import ConfigError
from xtune.parallel.launch import AFTERMATH, Launch, report_failures, wanted

TWO_HOSTS = dict(NPROC_PER_NODE='4', NNODES='2', NODE_RANK='1', ADDR='gpu1', PORT='5000')


def test_without_variables_nothing_is_launched():
    assert wanted({}) is None and wanted(dict(NPROC_PER_NODE='1')) is None
    assert wanted({**TWO_HOSTS, 'RANK': '0', 'WORLD_SIZE': '2'}) is None  # already launched


def test_one_host():
    launch = wanted(dict(NPROC_PER_NODE='8'))
    assert (launch.processes, launch.nodes, launch.node) == (8, 1, 0)
    assert '--nproc-per-node=8' in launch.arguments() and '--standalone' in launch.arguments()


def test_two_hosts():
    launch = wanted(TWO_HOSTS)
    assert launch == Launch(4, 2, 1, 'gpu1', 5000)
    arguments = launch.arguments()
    assert {'--nnodes=2', '--node-rank=1', '--master-addr=gpu1', '--master-port=5000'} <= set(arguments)
    assert '--standalone' not in arguments
    assert wanted({**TWO_HOSTS, 'NPROC_PER_NODE': '1'}).processes == 1
    assert wanted({k: v for k, v in TWO_HOSTS.items() if k != 'PORT'} | {'MASTER_PORT': '7'}).port == 7


def test_torchrun_accepts_the_arguments(monkeypatch):
    from torch.distributed import run

    monkeypatch.setenv('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '77')

    for launch in (wanted(dict(NPROC_PER_NODE='2')), wanted(TWO_HOSTS)):
        parsed = run.parse_args([*launch.arguments(), '-m', 'xtune'])
        config, *_ = run.config_from_args(parsed)
        assert config.nproc_per_node == launch.processes
        assert getattr(config, 'shutdown_timeout', 77) == 77  # torch 2.11 has no such setting


WRONG = [
    dict(NPROC_PER_NODE='two'),
    dict(NPROC_PER_NODE='0'),
    dict(NPROC_PER_NODE='-1'),
    dict(NNODES='many'),
    dict(NODE_RANK='2'),
    dict(NODE_RANK=''),
    dict(ADDR=''),
    dict(PORT='x'),
    dict(PORT='70000'),
    dict(PORT='', MASTER_PORT='x'),
]


def test_invalid_values_are_refused(golden):
    messages = {}
    for changed in WRONG:
        with pytest.raises(ConfigError) as caught:
            wanted({**TWO_HOSTS, **changed})
        messages[' '.join(f'{name}={value}' for name, value in changed.items())] = caught.value
    golden('run.launch_variables', messages)


def failure(code, at=0, message='', callstack='', pid=77):
    error_file = {'message': {'message': message, 'extraInfo': {'py_callstack': callstack}}} if message else {}
    names = {-9: 'SIGKILL', -15: 'SIGTERM', -11: 'SIGSEGV'}
    return SimpleNamespace(
        exitcode=code,
        timestamp=at,
        message=message,
        pid=pid,
        error_file_data=error_file,
        signal_name=lambda: names.get(code, ''),
    )


def test_a_user_error_is_printed_once_without_a_traceback(capsys):
    broken = "ModelError: the model `x` cannot be loaded: it isn't there"
    assert report_failures({r: failure(2, r, broken, 'Traceback (most recent call last)') for r in range(2)}) == 2
    assert capsys.readouterr().err == "error: the model `x` cannot be loaded: it isn't there\n"


def test_a_killed_rank_is_the_cause_even_if_another_ended_before_it(capsys):
    for text in AFTERMATH:
        assert report_failures({0: failure(1, 1, f'RuntimeError: {text}', 'Traceback'), 1: failure(-9, 2)}) == 1
        err = capsys.readouterr().err
        assert err.startswith('error: rank 1 (process 77)') and 'SIGKILL' in err and '--resume' in err
        assert 'Traceback' not in err


def test_a_rank_stopped_by_the_launcher_is_not_the_cause(capsys):
    for code in (-15, 143):
        report_failures({0: failure(code, 1), 1: failure(-11, 2)})
        assert 'SIGSEGV' in capsys.readouterr().err
    report_failures({0: failure(3, 1)})
    assert 'exit code 3' in capsys.readouterr().err


def test_a_bug_is_printed_with_its_traceback_and_rank(capsys):
    bug = failure(1, 1, 'KeyError: 3', 'Traceback\n KeyError: 3')
    assert report_failures({1: bug, 0: failure(1, 2, 'other', 'no')}) == 1
    assert capsys.readouterr().err.startswith('rank 1:\nTraceback\n KeyError: 3\n')


def test_interrupted(capsys):
    assert report_failures({0: failure(130, 1), 1: failure(-15, 0)}) == 130
    assert capsys.readouterr().err == ''


def test_a_failure_without_an_error_file(capsys):
    """If the launcher stopped all ranks, the first one is reported."""
    assert report_failures({0: failure(-15, 2), 1: failure(-15, 1)}) == 1
    assert 'rank 1' in capsys.readouterr().err
