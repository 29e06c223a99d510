"""The environment variables of each launcher, and the resulting `World`."""

import pytest

from xtune.errors import ConfigError
from xtune.parallel.env import ALONE, World, from_environment

TORCHRUN = dict(RANK='5', WORLD_SIZE='8', LOCAL_RANK='1', LOCAL_WORLD_SIZE='4', MASTER_ADDR='a1', MASTER_PORT='29400')
SLURM = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NNODES='2', SLURM_JOB_ID='41234')
MPI = {
    'OMPI_COMM_WORLD_RANK': '1',
    'OMPI_COMM_WORLD_SIZE': '2',
    'OMPI_COMM_WORLD_LOCAL_RANK': '1',
    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
}


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


def test_one_process_without_a_launcher():
    assert from_environment('none', {}) == ALONE and ALONE.is_main and ALONE.size == 1


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_torchrun(launcher):
    assert from_environment(launcher, TORCHRUN) == World(5, 8, 1, 'a1', 29400)
    assert from_environment(launcher, {**TORCHRUN, 'TORCHELASTIC_RESTART_COUNT': '2'}).attempt == 2


@pytest.mark.parametrize(
    ('hosts', 'first'),
    [
        ('gpu7', 'gpu7'),
        ('a1,b2', 'a1'),
        ('gpu[003-005,9]', 'gpu003'),
        ('gpu[7,9-11]', 'gpu7'),
        ('login,gpu[003-005]', 'login'),
        ('rack[1-2]-ib', 'rack1-ib'),
        ('rack[1-2]-ib,b3', 'rack1-ib'),
        ('r[1-2]n[3-4]', 'r1n3'),
    ],
)
def test_slurm_uses_the_first_host_of_its_list(hosts, first):
    world = from_environment('slurm', {**SLURM, 'SLURM_STEP_NODELIST': hosts, 'SLURM_JOB_NODELIST': 'other'})
    assert world == World(5, 8, 1, first, 20000 + 41234 % 20000)


@pytest.mark.parametrize(('visible', 'local'), [('', 1), ('0,1', 1), ('1', 0), ('GPU-8f1b', 0)])
def test_a_task_with_one_visible_gpu_uses_it(visible, local):
    env = {**SLURM, 'SLURM_STEP_NODELIST': 'a1', 'CUDA_VISIBLE_DEVICES': visible}
    assert from_environment('slurm', env).local_rank == local


def test_variables_of_the_user_override_those_of_slurm():
    env = {**SLURM, 'SLURM_JOB_NODELIST': 'gpu[1-2]', 'ADDR': '10.0.0.1', 'PORT': '5000'}
    assert from_environment('slurm', env) == World(5, 8, 1, '10.0.0.1', 5000)
    assert from_environment('slurm', {**env, 'MASTER_ADDR': 'm', 'MASTER_PORT': '6'}) == World(5, 8, 1, 'm', 6)


def test_two_jobs_on_a_host_have_different_ports():
    ports = {
        from_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'a', 'SLURM_JOB_ID': j}).port for j in ('7', '8')
    }
    assert len(ports) == 2


def test_mpi():
    assert from_environment('mpi', MPI) == World(1, 2, 1, '127.0.0.1', 29500)
    spread = {**MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '1', 'OMPI_COMM_WORLD_LOCAL_RANK': '0'}
    with pytest.raises(ConfigError, match='set ADDR'):
        from_environment('mpi', spread)
    assert from_environment('mpi', {**spread, 'ADDR': 'a1'}) == World(1, 2, 0, 'a1', 29500)


@pytest.mark.parametrize(
    ('launcher', 'env', 'name', 'starter'),
    [('pytorch', TORCHRUN, name, 'torchrun') for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')]
    + [('slurm', SLURM, name, 'srun') for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')]
    + [('mpi', MPI, name, 'mpirun') for name in list(MPI)[:3]],
)
def test_missing_and_invalid_variables_are_refused(launcher, env, name, starter):
    for broken, message in ((without(env, name), 'not set'), ({**env, name: 'x'}, "'x'")):
        with pytest.raises(ConfigError) as error:
            from_environment(launcher, broken)
        assert name in str(error.value) and message in str(error.value) and starter in str(error.value)


@pytest.mark.parametrize(('launcher', 'env', 'rank'), [('slurm', SLURM, 'SLURM_PROCID'), ('pytorch', TORCHRUN, 'RANK')])
def test_a_rank_beyond_the_number_of_processes(launcher, env, rank):
    with pytest.raises(ConfigError, match='rank 8 .* 8 processes'):
        from_environment(launcher, {**env, rank: '8'})


@pytest.mark.parametrize('port', ['http', '0', '70000'])
def test_a_bad_port(port):
    with pytest.raises(ConfigError, match='PORT .* 1 to 65535'):
        from_environment('slurm', {**SLURM, 'SLURM_JOB_NODELIST': 'a', 'PORT': port})
