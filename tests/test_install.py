"""An installed wheel carries every preset, template and data file of the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from xtune.config.presets import ROOT, presets

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[1]
# What a wheel is made from; build/ and *.egg-info of the checkout would carry files that are gone by now.
SOURCES = ('xtune', 'configs', 'requirements', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE')
REPORT = """
import json, sys
import xtune
from xtune.config.load import load
from xtune.config.presets import ROOT, find, presets, strategies
from xtune.config.flatten import flatten
cfg = load(find('smollm2_135m_lora_selfcog_e2'), {'lora.r': 4})
flatten(find('internlm_7b_qlora_oasst1_e3'))
print(json.dumps(dict(package=xtune.__file__, root=str(ROOT), r=cfg.lora.r, presets=list(presets()),
                      strategies=list(strategies()))))
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with nothing but the unpacked wheel."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ('source', 'wheels', 'target'))
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(CHECKOUT / name, source / name)
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'wheel', '--no-deps']
    command += ['--no-build-isolation', '--no-index', '--wheel-dir', str(wheels), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob('xtune-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_a_checkout_finds_its_own_presets():
    assert presets() and CHECKOUT / 'configs' == ROOT


def test_a_wheel_finds_and_loads_its_presets(installed, tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(installed)}
    done = subprocess.run([sys.executable, '-c', REPORT], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report['package']) == installed / 'xtune' / '__init__.py'
    assert Path(report['root']) == installed / 'xtune' / 'configs'
    assert report['r'] == 4 and report['presets'] == list(presets()) and len(report['strategies']) == 5


@pytest.mark.parametrize(
    ('folder', 'suffix'), [('configs', '.py'), ('configs', '.tsv'), ('xtune', '.py'), ('xtune', '.jinja')]
)
def test_a_wheel_has_every_file_of_the_checkout(installed, folder, suffix):
    wanted = {path.relative_to(CHECKOUT / folder) for path in (CHECKOUT / folder).rglob(f'*{suffix}')}
    place = installed / 'xtune' / 'configs' if folder == 'configs' else installed / 'xtune'
    assert wanted and not [path for path in wanted if not (place / path).is_file()]


def test_a_wheel_has_the_bundled_data(installed):
    bundled = CHECKOUT / 'xtune' / 'data' / 'files' / 'self_cognition.jsonl'
    assert (installed / bundled.relative_to(CHECKOUT)).read_bytes() == bundled.read_bytes()


def test_a_wheel_installs_the_command_and_no_tests(installed):
    (metadata,) = installed.glob('xtune-*.dist-info')
    assert 'xtune = xtune.cli:main' in (metadata / 'entry_points.txt').read_text(encoding='utf-8')
    assert (metadata / 'top_level.txt').read_text(encoding='utf-8').split() == ['xtune']
