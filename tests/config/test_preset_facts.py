"""Every preset of the predecessor exists by its name and has its values.

`files/presets.tsv` has one row for each of its 296 presets: values of v0.1.9, and the chat template of v0.1.23 where
that differs. What is better here, and so not compared: warm-up, optimizer class, precision, checkpoints.
"""

import csv
import json
import re
from pathlib import Path

import pytest

from xtune.config.lazy import comparable, root, to_plain
from xtune.config.load import load
from xtune.config.presets import find, presets

TABLE = Path(__file__).parent / 'files' / 'presets.tsv'
with TABLE.open(encoding='utf-8', newline='') as file:
    ROWS = {row['name']: row for row in csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE)}
HUGGING_FACE = [name for name, row in ROWS.items() if row['runner'] == 'hf_trainer']
MAP_FNS = {'MOSSSFTDataset(no map fn)': 'moss_sft_map_fn', 'pretrain_map_fn': 'text_map_fn'}
# The only presets whose system message is a text of their own, in other words than the predecessor's.
INLINE = [name for name, row in ROWS.items() if row['system_template'] == 'inline']
METHODS = {
    'qlora_nf4': dict(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True),
    'int8_lora': dict(load_in_8bit=True),
    'full': None,
}


@pytest.fixture(scope='module')
def configs():
    """The sections of each preset of the table."""
    return {name: to_plain(load(find(name))) for name in ROWS if name in presets()}


def sources(row):
    """Return the data sets of a row as (path, name, map function); evaluation sets are left out."""
    ids = [text.removeprefix('json:').removeprefix('jsonl:') for text in row['dataset_ids'].split(' | ')]
    map_fns = [fn for fn in row['dataset_map_fns'].split(',') if not fn.startswith('eval:')]
    map_fns *= len(ids) if 'MOSS' in map_fns[0] else 1
    for text, map_fn in zip(ids, map_fns, strict=False):  # the ids of evaluation sets come last
        path, _, option = text.rstrip(']').partition('[')
        yield path, option if '=' not in option and option else None, MAP_FNS.get(map_fn, map_fn)


def template(row):
    """Return the template: v0.1.23's; which left the full presets of InternLM-7B out."""
    named = 'default' if row['name'].startswith('internlm_7b_full') else row['prompt_template_v0123']
    return {'(none)': 'plain'}.get(row['prompt_template'], named or row['prompt_template'])


def expected(row):
    """Return what a preset of this row must have, keyed by what it is called in a message."""
    lora = {f'lora {k}': float(row[f'lora_{k}']) for k in ('r', 'alpha', 'dropout') if row[f'lora_{k}']}
    targets = row['lora_target_modules']
    if targets:
        lora['lora targets'] = 'all-linear' if targets == 'all linear (auto)' else targets.split(',')
    return dict(
        base_model=row['pretrained_model_name_or_path'],
        quantization=METHODS[row['method']],
        data=list(sources(row)),
        bots={row['bot_name'] or None},
        limit=int(row['max_dataset_length'] or 0) or None,
        chat_template=template(row),
        max_length=int(row['max_length']),
        pack=row['pack_to_max_length'] == 'True',
        batch=int(row['batch_size_per_device']),
        gradient_accumulation_steps=int(row['accumulative_counts']),
        lr=float(row['lr']),
        betas=tuple(float(x) for x in re.findall(r'\d[\d.]*', row['betas'])),
        weight_decay=float(row['weight_decay']),
        max_norm=float(re.search(r'\d[\d.]*', row['max_norm'])[0]),
        epochs=int(row['max_epochs']),
        workers=int(row['dataloader_num_workers'] or 0),
        **lora,
    )


def actual(sections):
    """Return the same of the sections of a preset."""
    train, lora, quantization = (sections[name] for name in ('train_dataset', 'lora', 'quantization'))
    train = train if isinstance(train, list) else [train]
    optimizer, schedule = sections['optimizer'], sections['schedule']
    adapter = {}
    if lora is not None:
        adapter = {'lora r': lora['r'], 'lora alpha': lora['lora_alpha'], 'lora dropout': lora['lora_dropout']}
        adapter['lora targets'] = lora['target_modules']
    return dict(
        base_model=sections['base_model'],
        quantization=quantization and {k: v for k, v in quantization.items() if k != 'type'},
        data=[(one['path'], one.get('name'), root(one['map_fn'])[1]) for one in train],
        bots={(one.get('map_args') or {}).get('bot_name') for one in train},
        limit=train[0].get('limit'),
        chat_template=sections['chat_template'],
        max_length=sections['max_length'],
        pack=sections['pack'],
        batch=schedule['batch_size'],
        gradient_accumulation_steps=schedule['gradient_accumulation_steps'],
        lr=optimizer['lr'],
        betas=optimizer['betas'],
        weight_decay=optimizer['weight_decay'],
        max_norm=schedule['max_grad_norm'],
        epochs=schedule['max_epochs'],
        workers=sections['data']['num_workers'],
        **adapter,
    )


@pytest.mark.integration
def test_every_name_is_a_preset(configs):
    assert len(ROWS) == 296 and not set(ROWS) - set(configs)


def test_every_preset_has_the_values_of_its_row(configs):
    wrong = []
    for name, row in ROWS.items():
        wanted, found = expected(row), actual(configs[name])
        wrong += [
            f'{name}: {key} is {found.get(key)!r}, not {wanted.get(key)!r}'
            for key in {*wanted, *found}
            if found.get(key) != wanted.get(key)
        ]
    assert not wrong, '\n'.join(wrong[:20])


def test_every_preset_has_the_chat_samples_of_its_row(configs):
    wrong = []
    for name, row in ROWS.items():
        samples = configs[name]['chat_samples']
        system = None if row['system_template'] == '(none)' else row['system_template']
        wanted = (int(row['evaluation_freq'] or 0), json.loads(row['evaluation_inputs'] or '[]'), system)
        found = (samples['every_steps'], samples['prompts'], 'inline' if name in INLINE else samples['system'])
        if found != wanted and name not in HUGGING_FACE:
            wrong.append(f'{name}: {found} instead of {wanted}')
    assert not wrong, '\n'.join(wrong[:5])
    assert INLINE and all('Action Input:' in configs[name]['chat_samples']['system'] for name in INLINE)


@pytest.mark.parametrize('name', HUGGING_FACE)
def test_a_preset_of_the_other_trainer_is_an_alias(name, configs):
    assert comparable(configs[name]) == comparable(configs[name.removesuffix('_hf')])


def test_deviations_from_the_table_are_the_same_in_all_presets(configs):
    for name, sections in configs.items():
        assert root(sections['optimizer']['type'])[1] == 'AdamW', name
        assert sections['schedule']['warmup_ratio'] == 0.03 and sections['schedule']['lr_schedule'] == 'cosine', name
        assert (sections['checkpoint']['every_steps'], sections['checkpoint']['keep']) == (500, 2), name
        assert sections['precision'] == 'auto', name
