"""Starting two processes with each launcher, and the errors of wrong starts."""

import socket
import sys

import pytest

pytestmark = pytest.mark.integration

XTUNE = [sys.executable, '-m', 'xtune', 'train']
STEPS = 2


@pytest.fixture(scope='module')
def write_run(tmp_path_factory, byte_model, write_config):
    """Return a function that writes a config of two steps and returns (folder, config)."""
    folder = tmp_path_factory.mktemp('starting')

    def make(name, **options):
        options = {'base_model': str(byte_model), 'schedule.max_steps': STEPS, 'schedule.max_epochs': 9, **options}
        return folder, write_config(folder, name, 'lora', **options)

    return make


def start_two_processes(start, ports, folder, config, launcher, variables):
    """Start two processes like `launcher`, with its environment variables `variables(rank)`."""
    (port,) = ports(1)
    return [
        start([*XTUNE, config, '--launcher', launcher], folder, f'{launcher}_{rank}', PORT=str(port), **variables(rank))
        for rank in range(2)
    ]


def assert_success(processes, folder, name, figures):
    for process in processes:
        assert process.exit() == 0, process.output
    assert {step for step, key in figures(folder / name) if key == 'loss'} == set(range(1, STEPS + 1))
    assert sum(process.output.count('2 ranks, ') for process in processes) == 1


def slurm(rank, hosts='127.0.0.1'):
    return dict(SLURM_PROCID=str(rank), SLURM_NTASKS='2', SLURM_LOCALID=str(rank), SLURM_STEP_NODELIST=hosts)


@pytest.mark.slow
def test_torchrun(write_run, start, figures):
    folder, config = write_run('torchrun')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'xtune']
    assert_success([start([*command, 'train', config], folder, 'torchrun')], folder, 'torchrun', figures)


@pytest.mark.slow
def test_slurm_with_deepspeed(write_run, start, ports, figures):
    """Slurm sets no LOCAL_RANK, but DeepSpeed needs it."""
    from xtune.config.strategies import deepspeed_strategy

    folder, config = write_run('slurm', strategy=deepspeed_strategy('zero2'))
    processes = start_two_processes(start, ports, folder, config, 'slurm', slurm)
    for process in processes:
        assert process.exit() == 0, process.output
    assert len(figures(folder / 'slurm')) == 2 * STEPS


@pytest.mark.slow
def test_mpi(write_run, start, ports, figures):
    folder, config = write_run('mpi')
    names = ('RANK', 'SIZE', 'LOCAL_RANK', 'LOCAL_SIZE')

    def variables(rank):
        return {f'OMPI_COMM_WORLD_{name}': str(v) for name, v in zip(names, (rank, 2, rank, 2), strict=True)}

    assert_success(start_two_processes(start, ports, folder, config, 'mpi', variables), folder, 'mpi', figures)


@pytest.mark.slow
def test_two_hosts(write_run, start, ports, figures):
    folder, config = write_run('hosts')
    env = dict(NNODES='2', NPROC_PER_NODE='1', ADDR='127.0.0.1', PORT=str(ports(1)[0]))
    processes = [start([*XTUNE, config], folder, f'host_{n}', NODE_RANK=str(n), **env) for n in range(2)]
    assert_success(processes, folder, 'hosts', figures)


@pytest.mark.slow
def test_a_rank_that_never_joins_is_named(write_run, start, ports):
    folder, config = write_run('absent')
    (port,) = ports(1)
    for rank, message in ((0, 'rank 1 of 2'), (1, 'rank 0 at 127.0.0.1')):
        command = [*XTUNE, config, '--launcher', 'slurm']
        process = start(command, folder, f'absent_{rank}', PORT=str(port), XTUNE_ARRIVAL='3', **slurm(rank))
        assert process.exit() == 2
        assert message in process.output and 'Traceback' not in process.output


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(write_run, start):
    folder, config = write_run('taken')
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = str(other.getsockname()[1])
        process = start([*XTUNE, config, '--launcher', 'slurm'], folder, 'taken', PORT=port, **slurm(0))
        assert process.exit() == 2
    assert f'127.0.0.1:{port}' in process.output and 'set PORT' in process.output


@pytest.mark.slow
@pytest.mark.parametrize('torchrun', [False, True])
def test_a_user_error_is_printed_once(torchrun, write_run, start):
    folder, config = write_run('nowhere', base_model='/no/such/model')
    if torchrun:
        launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '-m', 'xtune']
        process = start([*launcher, 'train', config], folder, 'nowhere_torchrun')
        assert process.exit() == 1  # exit code of torchrun
        assert process.output.count('error: ') == 1, process.output
    else:
        process = start([*XTUNE, config], folder, 'nowhere', NPROC_PER_NODE='2')
        assert process.exit() == 2
        assert 'Traceback' not in process.output and process.output.count('/no/such/model') == 1


@pytest.mark.slow
def test_a_rank_that_cannot_write_its_error_file(write_run, start):
    """On a full disk, the error file of a rank is incomplete when the launcher reads it."""
    folder, config = write_run('half', base_model='/no/such/model')
    # The limit holds for every file, so output goes through a pipe.
    command = f'(ulimit -f 1; exec {" ".join(map(str, XTUNE))} {config}) 2>&1 | cat; exit ${{PIPESTATUS[0]}}'
    process = start(['bash', '-c', command], folder, 'half', NPROC_PER_NODE='2', PYTHONDONTWRITEBYTECODE='1')
    assert process.exit() == 1
    assert 'disk' in process.output and 'JSONDecodeError' not in process.output


@pytest.mark.parametrize(
    ('env', 'arguments', 'message'),
    [
        (dict(NPROC_PER_NODE='two'), [], "got 'two'"),
        (dict(NNODES='2'), [], 'needs NODE_RANK'),
        (dict(NNODES='2', NODE_RANK='0'), [], 'NNODES=2 needs ADDR'),
        (dict(NNODES='2', NODE_RANK='2', ADDR='a'), [], 'NODE_RANK=2, but NNODES=2'),
        ({}, ['--deepspeed', 'zreo2'], 'did you mean `zero2`'),
        ({}, ['--launcher', 'slurm'], 'SLURM_PROCID, which is not set'),
        (dict(XTUNE_ARRIVAL='soon', PORT='29999', **slurm(0)), ['--launcher', 'slurm'], 'XTUNE_ARRIVAL must be'),
    ],
)
def test_bad_values_end_in_one_line(env, arguments, message, write_run, xtune, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, _, err = xtune('train', write_run('bad')[1], *arguments)
    assert code == 2 and err.startswith('error: ') and err.count('\n') == 1 and message in err


def test_more_processes_than_gpus(monkeypatch):
    """The GPU count of torch is patched, because the test machine has no GPU."""
    import torch

    from xtune.errors import ConfigError
    from xtune.parallel.launch import Launch, run

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(ConfigError, match='NPROC_PER_NODE=4, .* 2 GPUs'):
        run(Launch(4, 1, 0, '127.0.0.1', 29500), [])
