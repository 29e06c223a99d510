"""Section `runner`: allowed keys work, and all others are refused before data and model are loaded."""

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
class RecordingBackend(BaseVisBackend):
    def __init__(self, path, save_dir=None):
        super().__init__(save_dir)
        self.path = path

    def _init_env(self):
        open(self.path, 'w').close()

    @property
    @force_init_env
    def experiment(self):
        return self

    def _record(self, **values):
        with open(self.path, 'a') as file:
            file.write(json.dumps(values) + '\\n')

    @force_init_env
    def add_config(self, config, **_):
        self._record(config=config.to_dict())

    @force_init_env
    def add_scalars(self, scalars, step=0, file_path=None, **_):
        self._record(step=step, deterministic=torch.are_deterministic_algorithms_enabled(), **scalars)
"""


def trackers(*backends, **settings):
    return dict(visualizer=dict(vis_backends=list(backends), **settings))


INVALID_SECTIONS = [
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


def test_invalid_keys_and_values_are_refused(golden):
    messages = {}
    for section in INVALID_SECTIONS:
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
def test_tracker_without_its_package_is_refused(name, package, monkeypatch):
    monkeypatch.setattr('xtune.engine.trackers.find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=f'pip install {package}'):
        check_runner(trackers(dict(type='LocalVisBackend'), dict(type=name)))


def test_every_argument_of_the_runner_is_allowed_or_refused():
    arguments = set(inspect.signature(FlexibleRunner.__init__).parameters) - {'self'}
    allowed = arguments - set(INSTEAD) - {'load_from'}
    assert allowed == {'custom_hooks', 'visualizer', 'experiment_name', 'log_level', 'env_cfg', 'randomness'}


def test_tensorboard_is_added_once_to_other_trackers():
    def backend_names(section, tensorboard):
        return [backend['type'].__name__ for backend in visualizer(section, tensorboard)['vis_backends']]

    local, board = dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')
    assert backend_names(None, True) == ['TensorboardVisBackend'] and backend_names(None, False) == []
    assert backend_names(dict(vis_backends=local), True) == ['LocalVisBackend', 'TensorboardVisBackend']
    assert backend_names(dict(vis_backends=[board]), True) == ['TensorboardVisBackend']
    visualizer_object = Visualizer(vis_backends=[LocalVisBackend('.')])
    assert visualizer(visualizer_object, True) is visualizer_object


def test_unknown_key_is_refused_before_data_are_read(make_config, xtune):
    code, _, err = xtune('train', make_config(**{'runner.nonsense': 1, 'train_dataset.path': '/no/such/file.json'}))
    assert code == 2 and 'runner.nonsense' in err and 'no/such' not in err and 'Traceback' not in err


def test_trackers_receive_figures_and_hyper_parameters(make_config, xtune, tmp_path, monkeypatch):
    (tmp_path / 'my_tracker.py').write_text(TRACKER, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    backend = dict(type='RecordingBackend', path=str(tmp_path / 'recorded'))
    options = {
        'custom_imports': ['my_tracker'],
        'runner': dict(
            trackers(backend, dict(type='LocalVisBackend')),
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
    config, *metrics = [json.loads(line) for line in (tmp_path / 'recorded').read_text().splitlines()]
    config = config['config']
    assert config['optimizer'] == {'type': 'AdamW', 'lr': 3e-4, 'betas': [0.9, 0.999], 'weight_decay': 0.0}
    assert config['lora']['r'] == 64 and config['lora']['type'] == 'LoraConfig' and config['quantization'] is None
    assert config['schedule']['max_steps'] == 1 and config['train_dataset']['map_fn'] == 'alpaca_map_fn'
    assert [row['step'] for row in metrics] == [1] and 'train/loss' in metrics[0] and metrics[0]['deterministic']
    [written_config] = Path(tmp_path / 'run').glob('*/vis_data/config.py')
    assert runpy.run_path(str(written_config))['optimizer']['lr'] == 3e-4
    assert list(Path(tmp_path / 'run').glob('*/vis_data/events.*'))  # of TensorBoard, from log.tensorboard
