"""Detect the variant of a 2023 remote-code checkpoint.

Only JSON files are read: an Auto class of transformers would ask whether to run the repository's code.
"""

import re
from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean
from ..loading.json_files import read_config, read_json

# model_type of config.json -> its variants.
VARIANTS = {
    'internlm': ('internlm',),
    'baichuan': ('baichuan_7b', 'baichuan2_7b', 'baichuan_13b', 'baichuan2_13b'),
    'qwen': ('qwen',),
    'chatglm': ('chatglm2', 'chatglm3'),
}
NAMES = tuple(name for names in VARIANTS.values() for name in names)
_HOW_TO_CHOOSE = (
    'set llm.variant=NAME in the config or with --cfg-options, or pass --variant NAME to `xtune chat` and `convert`'
)


def is_legacy(name: str | Path) -> bool:
    """Return whether the local folder `name` is a 2023 remote-code checkpoint.

    Raises:
        ModelError: Its config.json is damaged.
    """
    folder = Path(name).expanduser()
    return folder.is_dir() and read_config(folder).get('model_type') in VARIANTS


def variant_of(folder: Path, values: dict[str, Any], wanted: str | None = None) -> str:
    """Return the variant of a config.json with the content `values`: `wanted` if given, else detected from its keys.

    Raises:
        ModelError: `wanted` is unknown or of another model type, the checkpoint is not supported, or it is ambiguous.
    """
    model_type = values.get('model_type')
    possible = VARIANTS[model_type]
    if wanted is not None and wanted not in NAMES:
        raise ModelError(f'unknown variant `{wanted}`{did_you_mean(wanted, NAMES)} (known: {", ".join(NAMES)})')
    if wanted is not None and wanted not in possible:
        raise ModelError(
            f'{folder} has the model_type `{model_type}`, which does not match the variant {wanted}: use '
            f'{" or ".join(possible)}'
        )
    _refuse_unsupported(folder, values)
    if wanted is not None:
        return wanted
    if model_type == 'baichuan':
        return _baichuan(folder, values)
    if model_type == 'chatglm':
        return _chatglm(folder, values)
    return possible[0]


def _refuse_unsupported(folder: Path, values: dict[str, Any]) -> None:
    bits = values.get('quantization_bit')
    if bits or values.get('quantization_config'):
        key = f'quantization_bit={bits}' if bits else f'quantization_config={values["quantization_config"]}'
        raise ModelError(
            f'{folder} contains quantized weights ({key}); use the unquantized repository, and set quantization in the '
            'config or --bits to quantize it while loading'
        )
    if values['model_type'] != 'chatglm':
        return
    if values.get('position_encoding_2d') or 'multi_query_attention' not in values:
        raise ModelError(
            f'{folder} is ChatGLM-6B of the first generation (two-dimensional positions, no multi-query attention), '
            'for which transformers has no class; use ChatGLM2 or ChatGLM3'
        )
    if values.get('pre_seq_len'):
        raise ModelError(f'{folder} has a prefix encoder (pre_seq_len={values["pre_seq_len"]}), which is not supported')


def _baichuan(folder: Path, values: dict[str, Any]) -> str:
    name = (values.get('architectures') or [''])[0]
    is_7b_class = name == 'BaiChuanForCausalLM'  # with a capital C: only Baichuan 7B
    rotary, alibi = 'max_position_embeddings' in values, 'model_max_length' in values
    second_generation = {125696: True, 64000: False}.get(values.get('vocab_size'))
    has_tokenizer_class = values.get('tokenizer_class') == 'BaichuanTokenizer'
    if is_7b_class and rotary and not second_generation and not has_tokenizer_class:
        return 'baichuan_7b'
    if name == 'BaichuanForCausalLM':
        # The vocabulary size distinguishes the generations; if it was resized, the tokenizer class does.
        if rotary and (second_generation or (second_generation is None and has_tokenizer_class)):
            return 'baichuan2_7b'
        if not rotary and alibi and not (second_generation is False and has_tokenizer_class):
            return 'baichuan2_13b' if second_generation or has_tokenizer_class else 'baichuan_13b'
    keys = ('architectures', 'vocab_size', 'tokenizer_class', 'max_position_embeddings', 'model_max_length')
    present = ', '.join(f'{key}={values[key]}' for key in keys if key in values)
    raise ModelError(
        f'{folder} may be any of {", ".join(VARIANTS["baichuan"])}, whose attention and lm_head differ, and its '
        f'config.json is ambiguous ({present}): {_HOW_TO_CHOOSE}'
    )


def _chatglm(folder: Path, values: dict[str, Any]) -> str:
    if values.get('rope_ratio', 1) != 1:
        raise ModelError(
            f'{folder} has rope_ratio={values["rope_ratio"]}: chatglm3 multiplies the rotary base by it, chatglm2 '
            f'divides the positions by it, and config.json does not name the variant; {_HOW_TO_CHOOSE}'
        )
    code = folder / 'tokenization_chatglm.py'
    if code.is_file():
        return 'chatglm3' if '<|observation|>' in code.read_text(encoding='utf-8') else 'chatglm2'
    tokenizer_name = read_json(folder / 'tokenizer_config.json').get('name_or_path')
    for name in (values.get('_name_or_path'), tokenizer_name, folder.resolve().name):
        match = re.search(r'chatglm([23])', str(name or '').lower().replace('_', '').replace('-', ''))
        if match:
            return f'chatglm{match[1]}'
    raise ModelError(
        f'{folder} may be chatglm2 or chatglm3, whose chat tokens differ, and its files are ambiguous: {_HOW_TO_CHOOSE}'
    )
