"""Write a config with every option of the schema as one self-contained, commented file.

The comments are the descriptions of the schema, unless the config has comments of its own. A section with a `type` is
quoted from the config or its part, and only changed values are rewritten. The file is read back and compared before it
is returned, so that it never means something else than the config.
"""

import ast
import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .lazy import comparable, import_of, read_text, to_plain, walk
from .literals import WIDTH, literal
from .load import load
from .sections import SCALARS, SECTIONS, TYPED, Source
from .source_sections import Comments, SourceSection, source_sections

_SIGNATURE = 'Written by `xtune copy-cfg'


def flatten(config: Path, options: dict | None = None) -> str:
    """Return the text of one file that loads to the same values as `load(config, options)`, defaults written out.

    Raises:
        ConfigError: The config or an option is wrong.
    """
    return flatten_config(load(config, options), Path(config))


def flatten_config(cfg: Config, config: Path) -> str:
    """Return the text of one file that loads to the values of `cfg`, with the comments of its file `config`."""
    values = with_defaults(to_plain(cfg))
    sources = source_sections(config)
    blocks, group = [], ''
    for name, section in SECTIONS.items():
        if section.group != group:
            group = section.group
            blocks.append(f'# ---- {group} ----')
        blocks.append(section_text(name, values[name], sources.get(name)))
    text = '\n'.join([_docstring(config), *_imports(values), '', '\n\n'.join(blocks), ''])
    written, wanted = comparable(to_plain(read_text(text))), comparable(values)
    changed = [name for name in {*written, *wanted} if written.get(name) != wanted.get(name)]
    assert not changed, f'{config}: {changed} changed on the way into one file'
    return text


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a config with all options, in the order of the schema."""
    missing = {'val_dataset': None, 'custom_imports': [], 'runner': None}
    filled = {}
    for name, section in SECTIONS.items():
        if name in SCALARS:
            filled[name] = values.get(name, SCALARS[name].default)
        elif section.keys is Source:
            value = values.get(name, missing.get(name))
            filled[name] = (
                [_with_default_keys(Source, one) for one in value]
                if isinstance(value, (list, tuple))
                else _with_default_keys(Source, value)
                if isinstance(value, dict)
                else value
            )
        elif section.keys is not None:
            filled[name] = _with_default_keys(section.keys, values.get(name) or {})
        else:
            filled[name] = values.get(name, missing.get(name))
    return filled


def _with_default_keys(keys: type, given: dict[str, Any]) -> dict[str, Any]:
    return {option.name: given.get(option.name, option.default) for option in fields(keys)}


def section_text(name: str, value: Any, source: SourceSection | None = None) -> str:
    """Return the assignment of a section with a comment for each option.

    Args:
        name: The section's name.
        value: Its value, with all options.
        source: The section in a file, whose comments take the place of the descriptions.
    """
    section = SECTIONS[name]
    if name in SCALARS:
        doc = SCALARS[name].metadata['doc']
        return _option(f'{name} = ', literal(value, 0), '', _comments(source, doc), doc, 0)
    comments = _comments(source, section.doc)
    above = _lines(comments.above if comments and comments.above else _wrapped(section.doc, 0), 0)
    if name in TYPED and source is not None:
        return above + source.render(value)
    if section.keys is Source and isinstance(value, list):
        items = [_keys_text(section.keys, one, source, 4, (at,)) for at, one in enumerate(value)]
        text = '[\n' + ''.join(f'    {item},\n' for item in items) + ']'
    elif section.keys is not None and isinstance(value, dict):
        text = _keys_text(section.keys, value, source, 0, ())
    else:
        text = literal(value, 0)
    return f'{above}{name} = {text}' + (f'  # {comments.behind}' if comments and comments.behind else '')


def _keys_text(keys: type, value: dict, source: SourceSection | None, indent: int, path: tuple[int, ...]) -> str:
    """Return a dict with a comment for each key; in a list of data sets only the first gets the descriptions."""
    text = 'dict(\n'
    for option in fields(keys):
        doc = option.metadata['doc'] if path in ((), (0,)) else ''
        comments = _comments(source, doc, *path, option.name)
        shown = literal(value[option.name], indent + 4)
        text += _option(f'{option.name}=', shown, ',', comments, doc, indent + 4) + '\n'
    return text + ' ' * indent + ')'


def _comments(source: SourceSection | None, doc: str, *path: str | int) -> Comments | None:
    """Return the comments of an option in the file; None: its description is to be written."""
    own = source.comments_of(*path) if source is not None else Comments()
    return None if ' '.join(filter(None, [*own.above, own.behind])) in ('', doc) else own


def _option(start: str, value: str, end: str, comments: Comments | None, doc: str, indent: int) -> str:
    """Return an option with its comments, or with its description: behind it if that fits the width, else above."""
    line = f'{" " * indent}{start}{value}{end}'
    comments = comments or Comments(behind=doc)
    above, behind = _lines(comments.above, indent), comments.behind
    if behind and not above and ('\n' in line or len(f'{line}  # {behind}') > WIDTH):
        return _lines(_wrapped(behind, indent), indent) + line
    return above + line + (f'  # {behind}' if behind else '')


def _wrapped(doc: str, indent: int) -> list[str]:
    return textwrap.wrap(doc, WIDTH - indent - len('# '), break_long_words=False, break_on_hyphens=False)


def _lines(comments: Iterable[str], indent: int) -> str:
    return ''.join(f'{" " * indent}# {text}'.rstrip() + '\n' for text in comments)


def _docstring(config: Path) -> str:
    doc = ast.get_docstring(ast.parse(config.read_text(encoding='utf-8'))) or config.stem
    doc = doc.split(_SIGNATURE)[0].rstrip().replace('\\', '\\\\').replace('"""', "'''")
    return f'"""{doc}\n\n{_SIGNATURE} {config.stem}`; edit it and run `xtune train` on it.\n"""'


def _imports(values: dict) -> list[str]:
    wanted: dict[str, set] = {}
    for lazy in walk(values):
        module, name = import_of(lazy)
        wanted.setdefault(module, set()).add(name)
    lines: dict[bool, list] = {False: [], True: []}  # whether it is a module of xtune -> import lines
    for module in sorted(wanted):
        names = ', '.join(sorted(wanted[module]))
        lines[module.split('.')[0] == 'xtune'].append(f'from {module} import {names}')
    blocks = [block for block in (lines[False], lines[True]) if block]
    return '\n\n'.join('\n'.join(block) for block in blocks).split('\n')
