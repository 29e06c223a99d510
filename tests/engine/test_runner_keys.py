"""Section `runner`: what it may set works, and everything else is refused before data and model load."""

import inspect
import json
import runpy
from pathlib import Path

import pytest
from mmengine.runner import FlexibleRunner
from mmengine.visualization import LocalVisBackend, Visualizer

from xtune.engine.runner_keys import INSTEAD, check_runner
from xtune.engine.trackers import visualizer
from xtune.errors import ConfigError

TRACKER = """
import json, torch
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

@VISBACKENDS.register_module(force=True)
class Remembering(BaseVisBackend):
    def __init__(self, path, save_dir=None):
        super().__init__(save_dir)
        self.path = path

    def _init_env(self):
        open(self.path, 'w').close()

    @property
    @force_init_env
    def experiment(self):
        return self

    def _note(self, **values):
        with open(self.path, 'a') as file:
            file.write(json.dumps(values) + '\\n')

    @force_init_env
    def add_config(self, config, **_):
        self._note(config=config.to_dict())

    @force_init_env
    def add_scalars(self, scalars, step=0, file_path=None, **_):
        self._note(step=step, deterministic=torch.are_deterministic_algorithms_enabled(), **scalars)
"""


def trackers(*backends, **settings):
    return dict(visualizer=dict(vis_backends=list(backends), **settings))


WITHOUT_EFFECT = [
    dict(nonsense=1),
    dict(visualiser={}),
    dict(default_hooks={}),
    dict(resume=True, model={}),
    dict(run_meta={}),
    dict(log_level='INFOS'),
    dict(log_level=20),
    dict(experiment_name=3),
    dict(randomness=dict(seed=3)),
    dict(randomness=dict(deterministik=True)),
    dict(randomness=dict(deterministic=1)),
    dict(env_cfg=dict(dist_cfg=dict(backend='gloo'))),
    dict(env_cfg=3),
    dict(visualizer='Visualizer'),
    dict(visualizer=dict(type='Visualiser')),
    trackers(names='x'),
    trackers('LocalVisBackend'),
    trackers(dict(type='LocalVisBackends')),
    trackers(dict(type=dict)),
    trackers(dict(type='no.such.Tracker')),
    trackers(dict(type='LocalVisBackend', config_file='a.py')),
    trackers(dict(type='LocalVisBackend', config_save_file='a.txt')),
]


def test_what_has_no_effect_is_refused(golden):
    messages = {}
    for section in WITHOUT_EFFECT:
        with pytest.raises(ConfigError) as caught:
            check_runner(section)
        messages[str(section)] = caught.value
    golden('config.runner', messages)


@pytest.mark.parametrize(
    ('name', 'package'),
    [
        ('WandbVisBackend', 'wandb'),
        ('mmengine.MLflowVisBackend', 'mlflow'),
        ('mmengine.visualization.ClearMLVisBackend', 'clearml'),
        ('DVCLiveVisBackend', 'dvclive'),
    ],
)
def test_a_tracker_whose_package_is_missing_is_refused(name, package, monkeypatch):
    monkeypatch.setattr('xtune.engine.trackers.find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=f'pip install {package}'):
        check_runner(trackers(dict(type='LocalVisBackend'), dict(type=name)))


def test_every_argument_of_the_runner_is_decided_on():
    arguments = set(inspect.signature(FlexibleRunner.__init__).parameters) - {'self'}
    open_ = arguments - set(INSTEAD) - {'load_from'}
    assert open_ == {'custom_hooks', 'visualizer', 'experiment_name', 'log_level', 'env_cfg', 'randomness'}


def test_tensorboard_is_written_beside_other_trackers_and_once():
    def kinds(given, tensorboard):
        return [backend['type'].__name__ for backend in visualizer(given, tensorboard)['vis_backends']]

    local, board = dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')
    assert kinds(None, True) == ['TensorboardVisBackend'] and kinds(None, False) == []
    assert kinds(dict(vis_backends=local), True) == ['LocalVisBackend', 'TensorboardVisBackend']
    assert kinds(dict(vis_backends=[board]), True) == ['TensorboardVisBackend']
    built = Visualizer(vis_backends=[LocalVisBackend('.')])
    assert visualizer(built, True) is built


def test_a_wrong_key_is_refused_before_data_are_read(make_config, xtune):
    code, _, err = xtune('train', make_config(**{'runner.nonsense': 1, 'train_dataset.path': '/no/such/file.json'}))
    assert code == 2 and 'runner.nonsense' in err and 'no/such' not in err and 'Traceback' not in err


def test_trackers_receive_figures_and_hyper_parameters(make_config, xtune, tmp_path, monkeypatch):
    (tmp_path / 'my_tracker.py').write_text(TRACKER, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    mine = dict(type='Remembering', path=str(tmp_path / 'noted'))
    options = {
        'custom_imports': ['my_tracker'],
        'runner': dict(
            trackers(mine, dict(type='LocalVisBackend')),
            experiment_name='sweep',
            log_level='ERROR',
            env_cfg=dict(cudnn_benchmark=False),
            randomness=dict(deterministic=True),
        ),
        'schedule.max_steps': 1,
        'optimizer.lr': 3e-4,
    }
    import torch

    try:
        code, out, err = xtune('train', make_config(**options))
    finally:
        torch.use_deterministic_algorithms(False)
    assert code == 0, out + err
    config, *figures = [json.loads(line) for line in (tmp_path / 'noted').read_text().splitlines()]
    config = config['config']
    assert config['optimizer'] == {'type': 'AdamW', 'lr': 3e-4, 'betas': [0.9, 0.999], 'weight_decay': 0.0}
    assert config['lora']['r'] == 64 and config['lora']['type'] == 'LoraConfig' and config['quantization'] is None
    assert config['schedule']['max_steps'] == 1 and config['train_dataset']['map_fn'] == 'alpaca_map_fn'
    assert [row['step'] for row in figures] == [1] and 'train/loss' in figures[0] and figures[0]['deterministic']
    [written] = Path(tmp_path / 'run').glob('*/vis_data/config.py')
    assert runpy.run_path(str(written))['optimizer']['lr'] == 3e-4
    assert list(Path(tmp_path / 'run').glob('*/vis_data/events.*'))  # TensorBoard's, which log.tensorboard asks for
