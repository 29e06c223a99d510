"""Every private name of mmengine that xtune uses is there and does what xtune relies on."""

import inspect

import torch
from mmengine.config import Config, ConfigDict

from xtune.compat import mmengine_private
from xtune.compat.mmengine_runner_private import PlacedModelStrategy, RunnerWithoutEnvironmentLog

TEXT = """from not_installed_anywhere import Thing
import whole.module
optimizer = dict(type=Thing, lr=1e-4)
"""


def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(TEXT)
    return Config.fromfile(str(path), lazy_import=True)


def test_sections_are_read_without_importing(tmp_path):
    cfg = config(tmp_path)
    assert set(mmengine_private.lazy_dict(cfg)) == {'optimizer'}
    assert set(mmengine_private.lazy_dict(cfg, keep_imported=True)) == {'optimizer', 'Thing', 'whole'}
    assert mmengine_private.imported_names(cfg) == {'Thing', 'whole'}
    lazy = mmengine_private.lazy_dict(cfg)['optimizer']['type']
    assert str(lazy) == 'Thing'


def test_an_import_is_named_without_importing(tmp_path):
    names = mmengine_private.lazy_dict(config(tmp_path), keep_imported=True)
    assert mmengine_private.import_behind(names['Thing']) == ('not_installed_anywhere', 'Thing')
    assert mmengine_private.import_behind(names['whole']) == ('whole.module', None)


def test_an_import_can_come_from_another_module(tmp_path):
    lazy = mmengine_private.lazy_dict(config(tmp_path), keep_imported=True)['Thing']
    mmengine_private.set_module(lazy, 'fractions')
    assert mmengine_private.import_behind(lazy) == ('fractions', 'Thing')


def test_names_are_set_for_a_config_from_a_dict():
    cfg = Config(ConfigDict(a=1, b=2))
    mmengine_private.set_imported_names(cfg, {'b'})
    assert mmengine_private.imported_names(cfg) == {'b'}
    assert set(mmengine_private.lazy_dict(cfg)) == {'a'}


def test_sections_are_changed_in_place(tmp_path):
    cfg = config(tmp_path)
    mmengine_private.config_dict(cfg)['optimizer']['lr'] = 1.0
    assert mmengine_private.lazy_dict(cfg)['optimizer']['lr'] == 1.0


def test_values_are_read_without_importing(tmp_path):
    node = mmengine_private.config_dict(config(tmp_path))['optimizer']
    with mmengine_private.reading_lazily():
        assert ConfigDict.lazy is True
        assert str(node.type) == 'Thing'
    assert ConfigDict.lazy is False


def test_mmengine_calls_the_methods_that_strategy_and_runner_override():
    strategy, runner = PlacedModelStrategy.__mro__[1:], RunnerWithoutEnvironmentLog.__mro__[1:]
    for name, bases in (('_init_model_weights', strategy), ('_wrap_model', strategy), ('_log_env', runner)):
        assert any(name in vars(base) for base in bases), name
        assert any(f'self.{name}(' in inspect.getsource(base) for base in bases if base is not object), name


def test_the_strategy_does_not_change_the_model():
    model = torch.nn.Linear(1, 1)
    for name in ('_init_model_weights', '_wrap_model'):
        assert getattr(PlacedModelStrategy, name)(None, model) is model
