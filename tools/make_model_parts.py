"""Write the model parts in configs/_base_/models from configs/models.tsv.

python tools/make_model_parts.py           write what has changed
python tools/make_model_parts.py --check   exit with 1 if a file differs from its row
"""

import sys
from pathlib import Path

from xtune.config.model_table import Model, models
from xtune.config.paths import BASE

PART = '''"""{title}: {billions} B parameters, trained on up to {context_length} tokens.{note}"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = {base_model!r}

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation={attention!r},
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,{eos}
)

chat_template = {chat_template!r}
'''


def model_part(model: Model) -> str:
    """Return the text of a model part."""
    notes = model.note.replace('. ', '.\n')
    note = f'\n\n{notes}\n' if notes else ''
    eos = f'\n    eos_token={model.eos!r},' if model.eos else ''
    return PART.format(**vars(model) | dict(note=note, eos=eos))


def write(check: bool = False) -> list[Path]:
    """Write every part that differs from its row, unless `check`; return their files."""
    texts = {BASE / 'models' / f'{model.name}.py': model_part(model) for model in models().values()}
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding='utf-8') != text]
    for path in [] if check else changed:
        path.write_text(texts[path], encoding='utf-8')
    return changed


if __name__ == '__main__':
    differing = write(check='--check' in sys.argv)
    print(f'{len(differing)} files ' + ('differ' if '--check' in sys.argv else 'written'))
    sys.exit(bool(differing) and '--check' in sys.argv)
