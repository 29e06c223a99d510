"""One module per group of commands: the arguments and a function that runs the command.

`COMMANDS` maps a name to (summary, example, add_arguments, run). This package imports neither torch nor mmengine, so
`--help` is fast.
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
