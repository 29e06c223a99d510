"""Configs of parts read as mmengine reads them, and configs of another form are left to mmengine."""

import os

import pytest
from mmengine.config import Config

from xtune.config import read_base
from xtune.config.lazy import comparable, to_plain
from xtune.config.load import load
from xtune.config.presets import BASE
from xtune.errors import ConfigError

PART = 'from torch.optim import AdamW\nfirst = dict(type=AdamW, betas=(0.9, 0.99))\nsecond = [dict(a=1)]\n'
HEAD = 'from mmengine.config import read_base\nwith read_base():\n    from .part import {}\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'part.py').write_text(PART)
    return tmp_path


def write(folder, names, body=''):
    path = folder / 'preset.py'
    path.write_text(HEAD.format(names) + body)
    return path


def test_every_model_part_reads_as_mmengine_reads_it(tmp_path):
    (tmp_path / '_base_').symlink_to(BASE)
    path, rest = tmp_path / 'mine.py', ('methods.qlora', 'datasets.alpaca', 'runtime', 'strategies.one_device')
    for part in (BASE / 'models').glob('[a-z]*.py'):
        imports = [f'    from ._base_.{name} import *\n' for name in (f'models.{part.stem}', *rest)]
        path.write_text('from mmengine.config import read_base\nwith read_base():\n' + ''.join(imports))
        quick = read_base.read(path)
        assert quick is not None, part
        assert comparable(to_plain(quick)) == comparable(to_plain(Config.fromfile(str(path), lazy_import=True))), part


@pytest.mark.parametrize('names', ['*', 'first, second', 'second as third'])
def test_forms_of_import(folder, names):
    path = write(folder, names, 'new = 3\n')
    assert comparable(to_plain(read_base.read(path))) == comparable(
        to_plain(Config.fromfile(str(path), lazy_import=True))
    )


def test_a_change_stays_in_its_preset(folder):
    changed = read_base.read(write(folder, '*', "first.lr = 1\nsecond[0]['a'] = 2\n"))
    again = read_base.read(write(folder, '*'))
    assert to_plain(changed)['first']['lr'] == 1 and to_plain(changed)['second'] == [dict(a=2)]
    assert 'lr' not in to_plain(again)['first'] and to_plain(again)['second'] == [dict(a=1)]


def test_a_changed_part_is_read_again(folder):
    path = write(folder, 'second')
    read_base.read(path)
    (folder / 'part.py').write_text('second = 5\n')
    os.utime(folder / 'part.py', ns=(1, 1))
    assert to_plain(read_base.read(path)) == {'second': 5}


@pytest.mark.parametrize('body', ['from torch.optim import SGD\n', 'for i in (1, 2):\n    x = i\n', 'import torch\n'])
def test_other_forms_are_left_to_mmengine(folder, body):
    assert read_base.read(write(folder, '*', body)) is None


def test_a_part_with_parts_is_left_to_mmengine(folder):
    (folder / 'whole.py').write_text(HEAD.format('*').replace('.whole', '.part'))
    path = folder / 'preset.py'
    path.write_text(HEAD.format('*').replace('.part', '.whole'))
    assert read_base.read(path) is None


def test_a_name_that_is_missing_in_a_part(folder):
    with pytest.raises(ConfigError, match="does not define 'absent'"):
        load(write(folder, 'absent'))


def test_names_in_a_part_are_not_imported(folder):
    (folder / 'part.py').write_text('from absent_package import Thing\nfirst = dict(type=Thing, a=Thing.b)\n')
    assert set(to_plain(read_base.read(write(folder, '*', 'first.b = first.type\n')))['first']) == {'type', 'a', 'b'}
