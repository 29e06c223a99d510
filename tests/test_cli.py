"""The command line: help, exit codes, what goes to which stream, and that the light commands stay light."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from xtune.cli import main
from xtune.commands import COMMANDS
from xtune.config.load import load
from xtune.config.presets import presets
from xtune.errors import ConfigError
from xtune.version import __version__

pytestmark = pytest.mark.integration

PRESET = 'smollm2_135m_lora_selfcog_e2'
HELP = [[], *([name] for name in COMMANDS), *(['convert', action] for action in ('pth_to_hf', 'merge', 'split'))]


def run_and_report_modules(*arguments, cwd):
    """Run a command in a process of its own; return (exit code, is torch imported, stderr)."""
    code = (
        'import sys\nfrom xtune.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as stopped:\n'
        "    print('exit', stopped.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    word, status, torch_imported = done.stdout.split()[-3:]
    assert word == 'exit'
    return int(status), torch_imported == 'True', done.stderr


@pytest.mark.parametrize('command', HELP, ids=' '.join)
def test_help_shows_an_example(xtune, command):
    code, out, err = xtune(*command, '--help')
    assert code == 0 and not err
    assert f'example:\n  xtune {" ".join(command)}' in out


def test_imports_for_training_print_nothing():
    done = subprocess.run([sys.executable, '-c', 'import xtune.engine.train'], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_version_is_printed(xtune):
    assert xtune('--version') == (0, f'xtune {__version__}\n', '')


@pytest.mark.parametrize('arguments', [[], ['convert'], ['trian'], ['copy-cfg']])
def test_an_incomplete_command_shows_its_usage(xtune, arguments):
    code, out, err = xtune(*arguments)
    assert code == 2 and not out and err.startswith('usage: xtune')


def test_list_cfg_lists_every_preset_by_family(xtune):
    code, out, _ = xtune('list-cfg')
    assert code == 0 and set(presets()) < set(out.split()) and '\nsmollm2\n  smollm2_' in out


@pytest.mark.parametrize(
    ('pattern', 'fits'),
    [
        ('QLoRA', lambda name: 'qlora' in name),
        ('smollm2*_e2', lambda name: name.startswith('smollm2') and name.endswith('_e2')),
        (PRESET, lambda name: name == PRESET),
    ],
)
def test_list_cfg_filters_by_part_of_the_name_or_glob(xtune, pattern, fits):
    code, out, _ = xtune('list-cfg', '-p', pattern)
    shown = [line.strip() for line in out.splitlines() if line.startswith('  ')]
    assert code == 0 and shown == [name for name in presets() if fits(name)]


@pytest.mark.parametrize(('pattern', 'hint'), [('smollm2_135m_lora_selfcg_e2', PRESET), ('zzz', 'xtune list-cfg')])
def test_list_cfg_without_a_match_suggests_what_to_do(xtune, pattern, hint):
    code, out, err = xtune('list-cfg', '-p', pattern)
    assert code == 2 and not out and f'`{pattern}`' in err and hint in err


def test_messages_about_arguments(xtune, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f'{PRESET}_copy.py').touch()
    commands = (
        'list-cfg -p zzz',
        f'copy-cfg {PRESET} .',
        'copy-cfg deepspeed_zero1 . --cfg-options zero_optimization.stage=2',
        'copy-cfg deepspeed_zero2_ofload .',
        f'copy-cfg {PRESET} . --cfg-options schedule.max_epoch=1 max_length=0',
        f'copy-cfg {PRESET} . --cfg-options lora.r',
        f'train {PRESET} --strategy fsdp',
        f'train {PRESET} --strategy ddp --deepspeed zero1',
        'train nothing_like_it',
    )
    golden('cli.arguments', {f'xtune {command}': xtune(*command.split())[2] for command in commands})


def test_copy_cfg_writes_a_config_that_loads_with_options(xtune, tmp_path):
    folder = tmp_path / 'new' / 'folder'
    code, out, _ = xtune('copy-cfg', PRESET, folder, '--cfg-options', 'max_length=64', 'lora.r=4')
    target = folder / f'{PRESET}_copy.py'
    assert (code, out) == (0, f'wrote {target}\n')
    assert (load(target).max_length, load(target).lora.r) == (64, 4) and list(folder.iterdir()) == [target]


def test_copy_cfg_replaces_a_file_only_with_force(xtune, tmp_path):
    target = tmp_path / f'{PRESET}_copy.py'
    target.write_text('mine', encoding='utf-8')
    code, out, err = xtune('copy-cfg', PRESET, tmp_path)
    assert code == 2 and not out and '--force' in err and target.read_text(encoding='utf-8') == 'mine'
    assert xtune('copy-cfg', PRESET, tmp_path, '--force')[0] == 0
    assert load(target).max_length == 256


@pytest.mark.parametrize('below', ['', 'folder'])
def test_copy_cfg_refuses_a_target_that_is_not_writable(xtune, tmp_path, below):
    (tmp_path / 'file').write_text('a file, no folder', encoding='utf-8')
    code, out, err = xtune('copy-cfg', PRESET, tmp_path / 'file' / below)
    assert code == 2 and not out and str(tmp_path / 'file') in err and 'Traceback' not in err


def test_copy_cfg_of_a_strategy_refuses_cfg_options(xtune, tmp_path):
    code, _, err = xtune('copy-cfg', 'deepspeed_zero1', tmp_path, '--cfg-options', 'zero_optimization.stage=2')
    assert code == 2 and '--cfg-options' in err


@pytest.mark.parametrize(
    ('name', 'close'),
    [('smollm2_135m_lora_selfcg_e2', PRESET), ('deepspeed_zero2_ofload', 'deepspeed_zero2_offload')],
)
def test_a_misspelled_preset_suggests_similar_names(xtune, tmp_path, name, close):
    code, out, err = xtune('copy-cfg', name, tmp_path)
    assert code == 2 and not out and f'`{close}`' in err and 'Traceback' not in err


@pytest.mark.parametrize('command', ['train', 'log-dataset', 'check-custom-dataset', 'copy-cfg'])
def test_every_command_with_a_config_refuses_a_wrong_option(xtune, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, out, err = xtune(command, PRESET, '--cfg-options', 'schedule.max_epoch=1', 'max_length=0')
    assert code == 2 and not out and '`max_epochs`' in err and '`max_length`' in err
    assert not list(tmp_path.glob('*.py')) and not (tmp_path / 'work_dirs').exists()


def test_debug_shows_the_traceback_of_a_user_error():
    with pytest.raises(ConfigError, match='`nothing_like_it`'):
        main(['copy-cfg', 'nothing_like_it', '--debug'])


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--help'], 0),
        (['chat', '--help'], 0),
        (['list-cfg'], 0),
        (['copy-cfg', PRESET, '.', '--cfg-options', 'lora.r=4', 'optimizer.lr=1e-5'], 0),
        (['copy-cfg', 'deepspeed_zero3'], 0),
        (['copy-cfg', PRESET, 'below', '--strategy', 'fsdp2'], 0),
        (['train', PRESET, '--strategy', 'fsdp'], 2),
        (['train', PRESET, '--strategy', 'ddp', '--deepspeed', 'zero1'], 2),
        (['train', 'nothing_like_it'], 2),
    ],
    ids=lambda value: ' '.join(value[:2]) if isinstance(value, list) else None,
)
def test_torch_is_not_imported_before_it_is_needed(tmp_path, arguments, expected):
    code, torch_imported, err = run_and_report_modules(*arguments, cwd=tmp_path)
    assert (code, torch_imported) == (expected, False), err


def test_env_prints_versions(xtune):
    code, out, err = xtune('env')
    assert code == 0 and not err
    # As pip has it: `torch.__version__` of the builds on PyPI also names their CUDA.
    assert f'xtune         {__version__}\n' in out and f'torch         {version("torch")}\n' in out
    assert f'presets       {len(presets())} in ' in out
