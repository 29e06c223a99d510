"""The section `strategy` from --strategy and --deepspeed: a name, a ZeRO stage, or a DeepSpeed JSON file."""

import json
from pathlib import Path
from typing import Any, get_args

from mmengine.config import Config

from ..errors import ConfigError, did_you_mean
from .compose import docstring
from .flatten import section_text
from .presets import BASE, STRATEGY_PREFIX, strategies
from .sections import StrategyName


def strategy_parts() -> dict[str, Path]:
    """Map the name of each strategy (`fsdp2`) to the part that defines it."""
    return {name: BASE / 'strategies' / f'{name}.py' for name in get_args(StrategyName)}


def part_of(name: str) -> Path | None:
    """Return the part of the strategy `name` or `deepspeed_NAME`, or None if there is none."""
    return strategies().get(name) or strategy_parts().get(name)


def strategy_options(name: str | None, deepspeed: str | None, others: dict[str, Any]) -> dict[str, Any]:
    """Return the options that --strategy and --deepspeed set.

    Only `strategy.name` and `strategy.deepspeed` are set, so the rest of a config's section stays.

    Args:
        name: Name of a strategy, or None.
        deepspeed: Name of a ZeRO stage, a JSON file, or None.
        others: The other options.

    Raises:
        ConfigError: Both are given, or `others` name a strategy too; there is no such strategy or file.
    """
    if name is None and deepspeed is None:
        return {}
    if name is not None and deepspeed is not None:
        raise ConfigError(f'--strategy {name} and --deepspeed {deepspeed} both set the strategy; give one')
    given = f'--strategy {name}' if name is not None else f'--deepspeed {deepspeed}'
    if 'strategy.name' in others or 'strategy' in others:
        raise ConfigError(f'{given} and --cfg-options both set the strategy; give one')
    section = _named(name) if name is not None else deepspeed_strategy(deepspeed)
    return {f'strategy.{key}': section.get(key) for key in ('name', 'deepspeed')}


def _named(name: str) -> dict[str, Any]:
    part = strategy_parts().get(name.removeprefix(STRATEGY_PREFIX))
    if part is not None:
        return _section(part)
    hint = '; give a DeepSpeed JSON to --deepspeed' if name.endswith('.json') else did_you_mean(name, strategy_parts())
    raise ConfigError(f'--strategy takes {", ".join(strategy_parts())}, got `{name}`{hint}')


def deepspeed_strategy(name: str) -> dict[str, Any]:
    """Return the section `strategy` for `zero2`, `deepspeed_zero2` or a JSON file.

    Raises:
        ConfigError: There is no such strategy or file, or the file is not a JSON object or has no ZeRO stage.
    """
    known = strategies()
    short = [n.removeprefix(STRATEGY_PREFIX) for n in known]
    if name.removeprefix(STRATEGY_PREFIX) in short:
        return _section(known[STRATEGY_PREFIX + name.removeprefix(STRATEGY_PREFIX)])
    path = Path(name)
    if not path.is_file():
        hint = '; it is not a DeepSpeed strategy: use --strategy' if name in strategy_parts() else ''
        raise ConfigError(
            f'--deepspeed takes {", ".join(short)} or a JSON file, got `{name}`{hint or did_you_mean(name, short)}'
        )
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path} is not a DeepSpeed JSON: {error}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path} is not a DeepSpeed JSON: it holds a {type(values).__name__}')
    zero = values.get('zero_optimization')
    if not isinstance(zero, dict) or zero.get('stage') not in (1, 2, 3):
        raise ConfigError(
            f'{path} has no zero_optimization.stage of 1, 2 or 3, but zero_optimization={zero!r}; without a stage '
            "DeepSpeed shards nothing: write 'zero_optimization': {'stage': 2}, or use --strategy ddp"
        )
    parts = (zero.get('offload_optimizer'), zero.get('offload_param'))
    offload = '_offload' if any(part and part.get('device', 'none') != 'none' for part in parts) else ''
    return dict(name=f'zero{zero["stage"]}{offload}', deepspeed=values)


def part_text(part: Path) -> str:
    """Return the text of a strategy: the JSON for DeepSpeed, or the section for a config."""
    section = _section(part)
    if section['deepspeed'] is not None:
        return json.dumps(section['deepspeed'], indent=2) + '\n'
    return f'"""{docstring(part)}"""\n\n{section_text("strategy", section)}\n'


def _section(part: Path) -> dict[str, Any]:
    return Config.fromfile(str(part), lazy_import=True).strategy.to_dict()
