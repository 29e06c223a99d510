"""The names of the presets: those that `xtune list-cfg` shows, and what each is composed of."""

from dataclasses import dataclass
from functools import cache

from .model_table import models

_CLASSIC = 'alpaca alpaca_enzh alpaca_enzh_oasst1 alpaca_zh code_alpaca lawyer oasst1_512 oasst1 open_platypus'
# Sets that the column `presets` of models.tsv names.
SETS: dict[str, list[str]] = {
    # Of XTuner v0.1.
    'classic': [f'qlora_{dataset}_e3' for dataset in _CLASSIC.split()],
    'text': 'qlora_arxiv_gentitle_e3 qlora_colorist_e5 qlora_sql_e3'.split(),
    'chinese': 'qlora_medical_e1 qlora_openorca_e1 qlora_tiny_codes_e1'.split(),
    'moss': 'qlora_moss_sft_all_e1 qlora_moss_sft_all_e2_gpu8 qlora_moss_sft_plugins_e1'.split(),
    'msagent': ['qlora_msagent_react_e3_gpu8'],
    'internlm_7b': [
        *(f'full_{name}_e3' for name in 'alpaca alpaca_enzh alpaca_enzh_oasst1 alpaca_zh oasst1'.split()),
        *('qlora_oasst1_e3_hf', 'qlora_oasst1_mmlu_e3'),
    ],
    'llama2_70b': [f'{m}_open_platypus_e1{end}' for m in ('qlora', 'int8_lora') for end in ('', '_hf')],
    'smollm2_135m': 'fp8_lora_selfcog_e2 full_pretrain_e1 full_selfcog_e2 lora_alpaca_e1 lora_medqa_e1 lora_selfcog_e2 '
    'qlora_alpaca_e1 qlora_selfcog_e2'.split(),
    # Current models, by size: below 5 B parameters, one GPU of 24 to 80 GB, and above.
    'small': 'full_alpaca_enzh_e3 lora_alpaca_enzh_e3 lora_oasst1_e3 full_custom_sft_e1 lora_custom_sft_e1'.split(),
    'mid': 'lora_alpaca_enzh_e3 qlora_alpaca_enzh_e3 qlora_oasst1_e3 lora_custom_sft_e1 qlora_custom_sft_e1'.split(),
    'big': 'qlora_alpaca_enzh_e3 qlora_oasst1_e3 qlora_custom_sft_e1'.split(),
    # Base models, mixtures of experts, code models.
    'base': 'full_custom_pretrain_e1 qlora_custom_pretrain_e1 qlora_oasst1_e3'.split(),
    'experts': 'lora_alpaca_enzh_e3 lora_oasst1_e3 lora_custom_sft_e1'.split(),
    'code': 'lora_code_alpaca_e3 qlora_code_alpaca_e3 full_custom_pretrain_e1'.split(),
}
_ONE_ENGINE = 'XTuner v0.1 had two engines; here one runs both.'
# Names of another form, from XTuner v0.1 -> the preset that they mean, and why it has two names.
ALIASES: dict[str, tuple[str, str]] = {
    'internlm_7b_qlora_oasst1_e3_hf': ('internlm_7b_qlora_oasst1_e3', _ONE_ENGINE),
    'internlm_7b_qlora_oasst1_mmlu_e3': (
        'internlm_7b_qlora_oasst1_e3',
        'In XTuner v0.1 it also measured MMLU during training, which xtune does not.',
    ),
    'llama2_70b_int8_lora_open_platypus_e1_hf': ('llama2_70b_int8_lora_open_platypus_e1', _ONE_ENGINE),
    'llama2_70b_qlora_open_platypus_e1_hf': ('llama2_70b_qlora_open_platypus_e1', _ONE_ENGINE),
    'starcoder_qlora_stack_exchange_example': (
        'starcoder_qlora_stack_exchange_e1',
        'An example on 20,000 rows.',
    ),
}


@dataclass(frozen=True)
class Preset:
    """A preset that `xtune list-cfg` shows.

    Args:
        name: Its name.
        family: The heading it is shown under.
        composed: The name of model, method, data set and epochs that it is composed of; differs for an alias.
        note: Why it is an alias; else empty.
    """

    name: str
    family: str
    composed: str
    note: str = ''


@cache
def presets() -> dict[str, Preset]:
    """Map the names of all presets to what they are, ordered by family and name."""
    found = []
    for model in models().values():
        for word in model.presets.split():
            for ending in SETS[word[1:]] if word.startswith('@') else [word]:
                name = f'{model.name}_{ending}'
                found.append(Preset(name, model.family, *ALIASES.get(name, (name,))))
    return {one.name: one for one in sorted(found, key=lambda one: (one.family, one.name))}
