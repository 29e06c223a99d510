"""Names of the previous version: options and modules.

They work in this version, options with a note, and will be removed in the next one.
"""

import ast
import os
import sys
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from typing import Any

from ..errors import ConfigError

# Old name -> new name. A data set's key is named as that of `train_dataset`; in a list, without the position.
RENAMED: dict[str, str] = {
    'checkpointing': 'activation_checkpointing',
    'template': 'chat_template',
    'train_dataset.template': 'train_dataset.chat_template',
    'val_dataset.template': 'val_dataset.chat_template',
    'schedule.accumulate': 'schedule.gradient_accumulation_steps',
    'speed.masters': 'speed.master_weights',
    'speed.fused_loss': 'speed.chunked_cross_entropy',
    'speed.varlen': 'speed.varlen_attention',
}
# Old module -> new module, of classes that configs and checkpoints import.
MOVED: dict[str, str] = {'xtune.models.float8': 'xtune.ops.float8_linear'}


def current_module(dotted: str) -> str:
    """Return a module's present name; also of `module.Class`."""
    for old, new in MOVED.items():
        if dotted == old or dotted.startswith(f'{old}.'):
            return new + dotted.removeprefix(old)
    return dotted


def current_name(option: str) -> str:
    """Return the present name of a dotted option: `train_dataset.1.template` -> `train_dataset.1.chat_template`."""
    parts = option.split('.')
    known = RENAMED.get('.'.join(part for part in parts if not part.isdecimal()))
    return option if known is None else '.'.join([*parts[:-1], known.rpartition('.')[2]])


def rename_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return command-line options with present names; print a note for each old one.

    Args:
        options: Dotted option names and their values; a value may be a dict with old names as keys.

    Raises:
        ConfigError: An option is given by its old and its new name.
    """
    renamed: dict[str, Any] = {}
    for option, value in options.items():
        name = current_name(option)
        if name != option:
            if name in options:
                raise _given_twice('the command line', option, name)
            note('the command line', option, name)
        renamed[name] = value
    sections = {name: value for name, value in renamed.items() if '.' not in name}
    rename_sections(sections, 'the command line')
    return renamed


def rename_sections(sections: MutableMapping, origin: str, text: str | None = None, quiet: bool = False) -> None:
    """Replace old names in the sections of a config, in place; print a note for each.

    Args:
        sections: Section names and their values.
        origin: Where they come from, for messages.
        text: The config file. An option that has both names is an error only where this text has the new one;
            otherwise the new one was inherited from a part, and the value of the old one is taken.
        quiet: Print no notes.

    Raises:
        ConfigError: An option is given by its old and its new name.
    """
    written = None if text is None else _words(text)
    for old, new in RENAMED.items():
        section, _, old_key = old.rpartition('.')
        new_key = new.rpartition('.')[2]
        for holder in _holders(sections, section):
            if old_key not in holder:
                continue
            if new_key in holder and (written is None or new_key in written):
                raise _given_twice(origin, old, new)
            holder[new_key] = holder.pop(old_key)
            if not quiet:
                note(origin, old, new)


def _holders(sections: MutableMapping, section: str) -> Iterator[MutableMapping]:
    """Yield the dicts that hold the keys of `section`: one for each data set of a list; '' is the top level."""
    found = sections.get(section) if section else sections
    for holder in found if isinstance(found, (list, tuple)) else [found]:
        if isinstance(holder, MutableMapping):
            yield holder


def _words(text: str) -> set[str]:
    """Return the names that the statements of a config file set or mention, without those that it imports."""
    words = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.keyword(arg=str(word)):
                words.add(word)
            case ast.Constant(value=str(word)):
                words.add(word)
    return words


def _given_twice(origin: str, old: str, new: str) -> ConfigError:
    return ConfigError(f'{origin} sets both `{old}` and `{new}`, which is its new name; keep `{new}`')


@lru_cache
def note(origin: str, old: str, new: str) -> None:
    """Print, once a process and only on rank 0, that an option has a new name."""
    if os.environ.get('RANK', '0') == '0':
        print(f'note: {origin}: `{old}` is now `{new}`; the old name will be removed', file=sys.stderr)
