"""Write the model parts in configs/_base_/models from the rows of configs/models.tsv.

    python tools/make_model_parts.py           write the files that differ from their row
    python tools/make_model_parts.py --check   write nothing; exit with 1 if a file differs

Runs on a CPU in seconds. Prints the number of files.
"""

import argparse
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


def part_text(model: Model) -> str:
    """Return the text of a model part."""
    notes = model.note.replace('. ', '.\n')
    note = f'\n\n{notes}\n' if notes else ''
    eos = f'\n    eos_token={model.eos!r},' if model.eos else ''
    return PART.format(**vars(model) | dict(note=note, eos=eos))


def write_parts(check: bool = False) -> list[Path]:
    """Return the files that differ from their row, after writing them unless `check`."""
    texts = {BASE / 'models' / f'{model.name}.py': part_text(model) for model in models().values()}
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding='utf-8') != text]
    for path in [] if check else changed:
        path.write_text(texts[path], encoding='utf-8')
    return changed


def main() -> None:
    """Write the parts, or only compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if a file differs')
    check = parser.parse_args().check
    changed = write_parts(check)
    print(f'{len(changed)} files ' + ('differ' if check else 'written'))
    sys.exit(bool(changed) and check)


if __name__ == '__main__':
    main()
