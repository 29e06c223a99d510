"""Section `runner`: the arguments of mmengine's FlexibleRunner that a config may set, checked before slow work.

Most arguments follow from other sections of the config. Those are refused, with the name of the option to set instead.
"""

from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError, did_you_mean
from .trackers import visualizer_problems

_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_VALIDATION = 'set val_dataset and validation.every_steps'
_TEST = 'a run has no test phase: give the data as val_dataset'
_HOOKS = 'set the sections checkpoint, log and validation, and add hooks with runner.custom_hooks'
# Arguments of the runner that sections of the config set.
INSTEAD = {
    'model': 'set base_model, llm and lora',
    'work_dir': 'set work_dir, or --work-dir',
    'train_dataloader': 'set train_dataset, schedule.batch_size and data.num_workers',
    'optim_wrapper': 'set optimizer, schedule.gradient_accumulation_steps and schedule.max_grad_norm',
    'param_scheduler': 'set schedule.lr_schedule, schedule.warmup_ratio and schedule.min_lr_ratio',
    'train_cfg': 'set schedule.max_epochs or schedule.max_steps',
    **dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg'), _VALIDATION),
    **dict.fromkeys(('test_dataloader', 'test_evaluator', 'test_cfg'), _TEST),
    'strategy': 'set the section strategy, or --strategy',
    'auto_scale_lr': 'set optimizer.lr for the number of sequences per optimizer step',
    'default_hooks': _HOOKS,
    'data_preprocessor': 'set train_dataset.map_fn',
    'resume': 'start the run with --resume',
    'launcher': 'start the run with --launcher',
    'log_processor': 'set log.every_steps; all metrics are in metrics.jsonl',
    'default_scope': 'give the class of a hook, or its dotted name',
    'compile': 'set speed.compile',
    'cfg': 'the run passes its own config',
    'run_meta': 'the run sets it',
}
# Keys of arguments that are dicts, and their types.
_ENVIRONMENT = {'cudnn_benchmark': bool, 'mp_cfg': dict, 'resource_limit': int}
_ENVIRONMENT_INSTEAD = {'dist_cfg': 'xtune creates the process group; see strategy.timeout'}
_RANDOMNESS = {'deterministic': bool}
_RANDOMNESS_INSTEAD = {'seed': 'set seed, or --seed', 'diff_rank_seed': 'each rank already has its own dropout seed'}
_ALLOWED = ('custom_hooks', 'visualizer', 'experiment_name', 'log_level', 'env_cfg', 'randomness')


def check_runner(section: dict[str, Any], handled: tuple[str, ...] = ()) -> None:
    """Refuse invalid keys and values of the section `runner`; `handled` are keys that are checked elsewhere.

    Raises:
        ConfigError: A key is unknown or set by another section, a value has the wrong type, or the package of a
            tracker is missing. The message lists them all.
    """
    problems = [problem for key, value in section.items() if key not in handled for problem in _problems(key, value)]
    if problems:
        raise ConfigError('; '.join(problems))


def _problems(key: str, value: Any) -> Iterator[str]:
    if key in INSTEAD:
        yield f'runner.{key} has no effect: {INSTEAD[key]}'
    elif key not in _ALLOWED:
        close = did_you_mean(key, (*_ALLOWED, *INSTEAD)) or f'; it accepts {", ".join(_ALLOWED)}'
        yield f'runner.{key} is not an argument of the runner{close}'
    elif key == 'experiment_name' and not (isinstance(value, str) and value.strip()):
        yield f'runner.experiment_name must be a non-empty string, got {value!r}'
    elif key == 'log_level' and value not in _LEVELS:
        yield f'runner.log_level must be one of {", ".join(_LEVELS)}, got {value!r}{did_you_mean(value, _LEVELS)}'
    elif key == 'env_cfg':
        yield from _dict_problems('runner.env_cfg', value, _ENVIRONMENT, _ENVIRONMENT_INSTEAD)
    elif key == 'randomness':
        yield from _dict_problems('runner.randomness', value, _RANDOMNESS, _RANDOMNESS_INSTEAD)
    elif key == 'visualizer':
        yield from visualizer_problems(value)


def _dict_problems(place: str, value: Any, types: dict[str, type], instead: dict[str, str]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f'{place} must be a dict, got {value!r}'
        return
    for key, item in value.items():
        if key in instead:
            yield f'{place}.{key} has no effect: {instead[key]}'
        elif key not in types:
            yield f'{place}.{key} is unknown{did_you_mean(key, types)}'
        elif type(item) is not types[key]:
            yield f'{place}.{key} must be of type {types[key].__name__}, got {item!r}'
