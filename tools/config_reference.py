"""Write docs/en/config.md, the reference of all options, from the schema in xtune/config/sections.py.

    python tools/config_reference.py           write the page
    python tools/config_reference.py --check   write nothing; exit with 1 if the page is outdated

Runs on a CPU in seconds and prints nothing.
"""

import argparse
import ast
import inspect
import re
import sys
import typing
from dataclasses import MISSING, fields
from pathlib import Path

from xtune.config.deprecated import RENAMED
from xtune.config.migration import DATASET_KEYS, XTUNER_NAMES
from xtune.config.sections import SCALARS, SECTIONS, TYPED, Scalars
from xtune.config.validate import spell
from xtune.ops.float8_linear import Float8Config

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'en' / 'config.md'
EXAMPLES = dict.fromkeys(TYPED, 'methods/qlora') | dict.fromkeys(('llm', 'tokenizer'), 'models/smollm2_135m')
REQUIRED, LIMITS = ('required', 'optional'), {'low': 'at least', 'above': 'above', 'high': 'at most'}
HEAD = """# Config reference

<!-- Written by tools/config_reference.py from xtune/config/sections.py. Change those, not this page. -->

A config is one Python file that sets the names below. A preset is composed of *parts* (model, method, data set, ...)
from `configs/_base_/` and sets a few options beside them. Copy it into one flat file to edit, or change options for one
run:

```bash
xtune copy-cfg smollm2_135m_lora_selfcog_e2 .
xtune train smollm2_135m_lora_selfcog_e2_copy.py --cfg-options schedule.max_epochs=3 optimizer.lr=1e-3
```

- An option is a dotted name and a value. A value is a Python literal (`1e-4`, `None`, `"{'name': 'Ada'}"`), else text.
- Each run writes its config, flat and with all options, into its `work_dir`.
- A config holds imports, literal values and assignments. It is still code: do not run one that you do not trust.
- A name or key that is not on this page is an error, and so is a value of the wrong type or beyond its limits.
- A section with a `type` (a class or function) takes the arguments of that type; others are errors. `llm` also takes
  attributes of the model's config, and `tokenizer` those of the tokenizer.
- An option without effect is an error: `llm.dtype` (set `precision`), a name in `lora` that no module of the model has,
  `validation.every_steps` without validation data. These errors come before data are read.
- Option names of the previous version still work, with a note: {renamed}.

## All names

In the order of a flat config. A linked name has keys of its own.

"""
MIGRATION = """
## Names of XTuner v0.1

The error about an unknown name says the same. `xtune list-cfg` has the preset names of XTuner v0.1.
"""
# Sections whose type is a class of xtune: the class, documented only here, and an introduction.
XTUNE_TYPES = {
    'quantization': (Float8Config, 'With `type=xtune.ops.float8_linear.Float8Config`, as the method `fp8_lora` has it:')
}
# Types of sections that are not dicts.
SECTION_TYPES = {
    'custom_imports': 'a list',
    'train_dataset': 'a dict or a list of dicts',
    'val_dataset': 'a dict, a list of dicts or a number',
}
TABLE = '| name | value | default | meaning |\n|---|---|---|---|\n'


def page() -> str:
    """Return the whole page as Markdown."""
    rows, details = '', ''
    for name, section in SECTIONS.items():
        if name in SCALARS:
            rows += _rows(Scalars, name)
            continue
        section_type = SECTION_TYPES.get(name, 'a dict')
        detail = _example(name) if name in TYPED else TABLE + _rows(section.keys) if section.keys else ''
        detail += _class_arguments(*XTUNE_TYPES[name]) if name in XTUNE_TYPES else ''
        detail = 'A data set has the keys of [train_dataset](#train_dataset).\n' if name == 'val_dataset' else detail
        label = f'[{name}](#{name})' if detail else f'`{name}`'
        section_type += ' or None' * section.nullable
        rows += f'| {label} | {section_type} | {REQUIRED[section.optional]} | {section.doc} |\n'
        details += f'\n## {name}\n\n{section.doc}\n\n{detail}' if detail else ''
    renamed = ', '.join(f'`{old}` (now `{new}`)' for old, new in RENAMED.items())
    return HEAD.replace('{renamed}', renamed) + TABLE + rows + details + _migration()


def _migration() -> str:
    """Return the tables of option names of XTuner v0.1."""
    text = MIGRATION
    for heading, table in (('name in XTuner v0.1', XTUNER_NAMES), ('key of a data set', DATASET_KEYS)):
        text += f'\n| {heading} | xtune |\n|---|---|\n'
        text += ''.join(f'| `{name}` | {replacement} |\n' for name, replacement in table.items())
    return text


def _rows(table: type, only: str | None = None) -> str:
    """Return the table rows of the options in `table`, or of the option `only`."""
    hints, text = typing.get_type_hints(table), ''
    for option in fields(table):
        limits = [f'{word} {option.metadata[key]}' for key, word in LIMITS.items() if key in option.metadata]
        default = 'required' if option.default is MISSING else f'`{option.default!r}`'
        meaning = option.metadata['doc'].replace('<', '&lt;').replace('|', '\\|')
        if only in (None, option.name):
            text += f'| `{option.name}` | {", ".join([spell(hints[option.name]), *limits])} | {default} | {meaning} |\n'
    return text


def _example(name: str) -> str:
    """Return the section `name` of a part in configs/_base_ as a code block."""
    text = (ROOT / 'configs' / '_base_' / f'{EXAMPLES[name]}.py').read_text(encoding='utf-8')
    node = next(n for n in ast.parse(text).body if isinstance(n, ast.Assign) and n.targets[0].id == name)
    return f'```python\n{ast.get_source_segment(text, node)}\n```\n'


def _class_arguments(config_class: type, introduction: str) -> str:
    """Return a table of the arguments of a dataclass, with the meanings from its docstring."""
    arguments, hints = inspect.getdoc(config_class).partition('Args:\n')[2], typing.get_type_hints(config_class)
    meanings = dict(re.findall(r'^    (\w+): (.*(?:\n {8}.*)*)', arguments, re.MULTILINE))
    text = f'\n{introduction}\n\n{TABLE}'
    for argument in fields(config_class):
        meaning = ' '.join(meanings[argument.name].split())
        text += f'| `{argument.name}` | {spell(hints[argument.name])} | `{argument.default!r}` | {meaning} |\n'
    return text


def main() -> None:
    """Write the page, or compare it with the schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if the page is outdated')
    if parser.parse_args().check:
        sys.exit(PAGE.read_text(encoding='utf-8') != page())
    PAGE.write_text(page(), encoding='utf-8')


if __name__ == '__main__':
    main()
