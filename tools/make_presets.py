"""Write the model parts and the presets below configs/ from configs/models.tsv and the tables here.

    python tools/make_presets.py           write what has changed, name what is left over
    python tools/make_presets.py --check   exit with 1 if a file differs from its table

A row of models.tsv is a model part; its column `presets` lists `method_dataset_eN`, or `@set` for one of SETS.
"""

import ast
import csv
import re
import sys
from pathlib import Path

from xtune.config.compose import Recipe, parse
from xtune.config.presets import BASE, ROOT

TABLE = ROOT / 'models.tsv'
_NINE = 'alpaca_e3 alpaca_enzh_e3 alpaca_enzh_oasst1_e3 alpaca_zh_e3 code_alpaca_e3 lawyer_e3 oasst1_512_e3 oasst1_e3'
SETS: dict[str, list[str]] = {
    'classic': [f'qlora_{name}' for name in f'{_NINE} open_platypus_e3'.split()],
    'text': ['qlora_arxiv_gentitle_e3', 'qlora_colorist_e5', 'qlora_sql_e3'],
    'chinese': ['qlora_medical_e1', 'qlora_openorca_e1', 'qlora_tiny_codes_e1'],
    'moss': ['qlora_moss_sft_all_e1', 'qlora_moss_sft_all_e2_gpu8', 'qlora_moss_sft_plugins_e1'],
    'msagent': ['qlora_msagent_react_e3_gpu8'],
    'internlm_7b': [
        *(f'full_{name}_e3' for name in 'alpaca alpaca_enzh alpaca_enzh_oasst1 alpaca_zh oasst1'.split()),
        *('qlora_oasst1_e3_hf', 'qlora_oasst1_mmlu_e3'),
    ],
    'llama2_70b': [f'{m}_open_platypus_e1{end}' for m in ('qlora', 'int8_lora') for end in ('', '_hf')],
    'smollm2_135m': 'fp8_lora_selfcog_e2 full_pretrain_e1 full_selfcog_e2 lora_alpaca_e1 lora_medqa_e1 lora_selfcog_e2 '
    'qlora_alpaca_e1 qlora_selfcog_e2'.split(),
    # What to start with today, by size: below 5 B parameters, one GPU of 24 to 80 GB, and above.
    'small': 'full_alpaca_enzh_e3 lora_alpaca_enzh_e3 lora_oasst1_e3 full_custom_sft_e1 lora_custom_sft_e1'.split(),
    'mid': 'lora_alpaca_enzh_e3 qlora_alpaca_enzh_e3 qlora_oasst1_e3 lora_custom_sft_e1 qlora_custom_sft_e1'.split(),
    'big': 'qlora_alpaca_enzh_e3 qlora_oasst1_e3 qlora_custom_sft_e1'.split(),
    'base': 'full_custom_pretrain_e1 qlora_custom_pretrain_e1 qlora_oasst1_e3'.split(),
    'experts': 'lora_alpaca_enzh_e3 lora_oasst1_e3 lora_custom_sft_e1'.split(),
    'code': 'lora_code_alpaca_e3 qlora_code_alpaca_e3 full_custom_pretrain_e1'.split(),
}
# Names that do not follow the form: the preset they are made like, and why.
EXCEPTIONS: dict[str, tuple[str, str]] = {
    'starcoder_qlora_stack_exchange_example': ('starcoder_qlora_stack_exchange_e1', 'An example on 20,000 rows.'),
    'internlm_7b_qlora_oasst1_mmlu_e3': ('internlm_7b_qlora_oasst1_e3', 'Measures five-shot MMLU as it learns.'),
}
NOTES: dict[str, str] = {
    r'smollm2_135m_(full|q?lora)_selfcog_e2': 'Minutes on two CPU cores.',
    r'gpt_oss_20b_\w+': 'Nothing is packed: in transformers, packed samples of this model attend to each other.',
}
for _alias in ('internlm_7b_qlora_oasst1_e3', *(f'llama2_70b_{m}_open_platypus_e1' for m in ('qlora', 'int8_lora'))):
    EXCEPTIONS[f'{_alias}_hf'] = (_alias, f'Alias of {_alias}: one engine runs both.')
_TINY = ["activation_checkpointing = 'none'", 'log.every_steps = 5']
_TINY_LORA = ['optimizer.lr = 2e-3', 'lora.update(r=16, lora_alpha=32, lora_dropout=0.0)', *_TINY]
_EACH_ROW = 'schedule.update(max_epochs=2, batch_size=1, gradient_accumulation_steps=1)'
# Pattern of a preset's name -> lines it has beside its parts; one for `schedule` replaces the usual one.
CHANGES: dict[str, list[str]] = {
    r'llama2_70b_\w+': ['optimizer.lr = 3e-4', "lora.target_modules = ['gate_proj', 'down_proj', 'up_proj']"],
    r'llama2_7b_full_wizardlm_e1': ['schedule.update(max_epochs=1, batch_size=2)'],
    r'mistral_7b_qlora_skypile_pretrain_e1': ['lora.lora_dropout = 0.05'],
    r'starcoder_qlora_stack_exchange_example': [
        "lora.update(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=['c_proj', 'c_attn', 'q_attn'])",
        'optimizer.update(lr=1e-4, weight_decay=0.05)',
    ],
    r'internlm_7b_qlora_oasst1_mmlu_e3': [
        'evaluation = dict(',
        "    metric='mmlu',",
        "    val='./data/mmlu/five_shot_mmlu_val.json',",
        "    test='./data/mmlu/five_shot_mmlu_test.json',",
        ')',
    ],
    r'smollm2_135m_full_pretrain_e1': ['chat_samples.every_steps = None'],
    r'smollm2_135m_q?lora_(alpaca|medqa)_e1': ['max_length = 1024'],
    r'smollm2_135m_full_selfcog_e2': [_EACH_ROW, 'optimizer.lr = 2e-4', *_TINY],
    r'smollm2_135m_(q|fp8_)?lora_selfcog_e2': [_EACH_ROW, *_TINY_LORA],
}
# Beginning of a model's name -> the name that MOSS conversations teach it.
BOTS = dict(baichuan='Baichuan', internlm='InternLM', llama2='Llama2', llama_='Llama', qwen='Qwen')
MODEL = '''"""{title}: {billions} B parameters, trained on up to {tokens} tokens.{note}"""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
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

{comment}chat_template = {template!r}
'''


def models() -> list[dict[str, str]]:
    """Return the rows of models.tsv."""
    with TABLE.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))


def model_part(row: dict[str, str]) -> str:
    """Return the text of a model part."""
    notes = row['note'].replace('. ', '.\n')
    note = f'\n\n{notes}\n' if notes else ''
    eos = f'\n    eos_token={row["eos"]!r},' if row['eos'] else ''
    comment = "# 'auto' is the model's own chat template.\n" if row['template'] == 'auto' else ''
    return MODEL.format(**{**row, 'note': note, 'eos': eos, 'comment': comment})


def recipe_of(name: str) -> Recipe:
    """Return the pieces of the preset `name`, which may be one of EXCEPTIONS."""
    return parse(EXCEPTIONS.get(name, (name,))[0], BASE)


def preset(name: str) -> str:
    """Return the text of the preset `name`."""
    recipe = recipe_of(name)
    notes = [note for pattern, note in NOTES.items() if re.fullmatch(pattern, name)]
    notes += [EXCEPTIONS[name][1]] if name in EXCEPTIONS else []
    title = recipe.title(BASE) + ''.join(f'\n\n{note}\n' for note in notes)
    parts = [f'datasets.{recipe.dataset}', f'methods.{recipe.method}', f'models.{recipe.model}']
    imports = [f'    from .._base_.{part} import {", ".join(_sections(part))}\n' for part in parts]
    imports += ['    from .._base_.runtime import *\n', '    from .._base_.strategies.one_device import strategy\n']
    head = f'"""{title}"""\nfrom mmengine.config import read_base\n\nwith read_base():\n'
    return head + ''.join(imports) + '\n' + '\n'.join(_changes(name, recipe)) + '\n'


def _changes(name: str, recipe: Recipe) -> list[str]:
    lines = recipe.changes(BASE)
    for pattern, more in CHANGES.items():
        if re.fullmatch(pattern, name):
            heads = tuple(line.partition(' = ')[0] for line in more)
            lines = [line for line in lines if line.partition(' = ')[0] not in heads]
            lines = [line for line in lines if not (line.startswith('schedule') and more[0].startswith('schedule'))]
            lines = more[:1] + lines + more[1:] if more[0].startswith('schedule') else lines + more
    if recipe.dataset.startswith('moss_sft'):
        bot = next(bot for start, bot in BOTS.items() if recipe.model.startswith(start))
        places = ['[0]', '[1]'] if recipe.dataset == 'moss_sft_all' else ['']
        lines += [f'train_dataset{place}.map_args.bot_name = {bot!r}' for place in places]
    return lines


def _sections(part: str) -> list[str]:
    tree = ast.parse(BASE.joinpath(*part.split('.')).with_suffix('.py').read_text(encoding='utf-8'))
    return sorted(node.targets[0].id for node in tree.body if isinstance(node, ast.Assign))


def preset_names() -> dict[str, str]:
    """Map the name of each preset of the table to the folder of its family."""
    named = {}
    for row in models():
        for word in row['presets'].split():
            for ending in SETS[word[1:]] if word.startswith('@') else [word]:
                named[f'{row["name"]}_{ending}'] = row['folder']
    return named


def write(check: bool = False) -> list[Path]:
    """Write every file that differs from the table, unless `check`; return those files."""
    changed = []

    def put(path: Path, text: str) -> None:
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            changed.append(path)
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding='utf-8')

    for row in models():
        put(BASE / 'models' / f'{row["name"]}.py', model_part(row))
    for name, folder in preset_names().items():
        put(ROOT / folder / '__init__.py', '')
        put(ROOT / folder / f'{name}.py', preset(name))
    return changed


if __name__ == '__main__':
    differing = write(check='--check' in sys.argv)
    print(f'{len(differing)} files ' + ('differ' if '--check' in sys.argv else 'written'))
    sys.exit(bool(differing) and '--check' in sys.argv)
