"""One module for each group of commands: arguments, and a function that runs them.

`COMMANDS` maps a name to (summary, example, add_arguments, run). Importing this package imports neither torch nor
mmengine, so that `--help` answers at once.
"""

from . import chat, configs, convert, data, env, plan, train

COMMANDS = {
    **configs.COMMANDS,
    **plan.COMMANDS,
    **train.COMMANDS,
    **convert.COMMANDS,
    **chat.COMMANDS,
    **data.COMMANDS,
    **env.COMMANDS,
}

__all__ = ['COMMANDS']
