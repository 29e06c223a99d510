"""Which of the old layouts a folder has. Reads JSON only, so that no Auto class asks about the repository's code."""

import json
import re
from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean

# model_type of config.json -> the variants it may be.
VARIANTS = {
    'internlm': ('internlm',),
    'baichuan': ('baichuan_7b', 'baichuan2_7b', 'baichuan_13b', 'baichuan2_13b'),
    'qwen': ('qwen',),
    'chatglm': ('chatglm2', 'chatglm3'),
}
NAMES = tuple(name for names in VARIANTS.values() for name in names)
HOW = 'say which with llm.variant=NAME in the config or --cfg-options, or --variant NAME of `xtune chat` and `convert`'


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; empty if there is no such file.

    Raises:
        ModelError: It is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f'{path} is damaged ({error}); copy it again') from error
    if not isinstance(values, dict):
        raise ModelError(f'{path} holds a {type(values).__name__} where a JSON object is expected; copy it again')
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of `folder`; empty if there is none.

    Raises:
        ModelError: It is no JSON object.
    """
    return read_json(folder / 'config.json')


def is_legacy(name: str | Path) -> bool:
    """Tell whether the local folder `name` has one of the old layouts.

    Raises:
        ModelError: Its config.json is damaged.
    """
    folder = Path(name).expanduser()
    return folder.is_dir() and read_config(folder).get('model_type') in VARIANTS


def variant_of(folder: Path, values: dict[str, Any], wanted: str | None = None) -> str:
    """Return the variant of a config.json `values`: `wanted` if given, else what its keys prove.

    Raises:
        ModelError: `wanted` is unknown or of another model type, the layout is not supported, or nothing proves one.
    """
    kind = values.get('model_type')
    possible = VARIANTS[kind]
    if wanted is not None and wanted not in NAMES:
        raise ModelError(f'no variant is called `{wanted}`{did_you_mean(wanted, NAMES)} (known: {", ".join(NAMES)})')
    if wanted is not None and wanted not in possible:
        raise ModelError(
            f'{folder} has model_type `{kind}`, which is not of variant {wanted}: take {" or ".join(possible)}'
        )
    _refuse_unsupported(folder, values)
    if wanted is not None:
        return wanted
    if kind == 'baichuan':
        return _baichuan(folder, values)
    if kind == 'chatglm':
        return _chatglm(folder, values)
    return possible[0]


def _refuse_unsupported(folder: Path, values: dict[str, Any]) -> None:
    bits = values.get('quantization_bit')
    if bits or values.get('quantization_config'):
        how = f'quantization_bit={bits}' if bits else f'quantization_config={values["quantization_config"]}'
        raise ModelError(
            f'{folder} holds weights that are quantised already ({how}); take the unquantised repository, and set '
            'quantization in the config or --bits to quantise it while it loads'
        )
    if values['model_type'] != 'chatglm':
        return
    if values.get('position_encoding_2d') or 'multi_query_attention' not in values:
        raise ModelError(
            f'{folder} is ChatGLM-6B of the first generation (two-dimensional positions, no multi-query attention), '
            'which no class of transformers holds; take ChatGLM2 or ChatGLM3'
        )
    if values.get('pre_seq_len'):
        raise ModelError(f'{folder} has a prefix encoder (pre_seq_len={values["pre_seq_len"]}), which is not supported')


def _baichuan(folder: Path, values: dict[str, Any]) -> str:
    name = (values.get('architectures') or [''])[0]
    first = name == 'BaiChuanForCausalLM'  # with a capital C only Baichuan 7B
    rotary, alibi = 'max_position_embeddings' in values, 'model_max_length' in values
    second = {125696: True, 64000: False}.get(values.get('vocab_size'))
    named = values.get('tokenizer_class') == 'BaichuanTokenizer'
    if first and rotary and not second and not named:
        return 'baichuan_7b'
    if name == 'BaichuanForCausalLM':
        # The vocabulary tells the generations apart, and where it was resized the tokenizer's class does.
        if rotary and (second or (second is None and named)):
            return 'baichuan2_7b'
        if not rotary and alibi and not (second is False and named):
            return 'baichuan2_13b' if second or named else 'baichuan_13b'
    keys = ('architectures', 'vocab_size', 'tokenizer_class', 'max_position_embeddings', 'model_max_length')
    signs = ', '.join(f'{key}={values[key]}' for key in keys if key in values)
    raise ModelError(
        f'{folder} may be any of {", ".join(VARIANTS["baichuan"])}, whose attention and head differ, and its '
        f'config.json does not tell ({signs}): {HOW}'
    )


def _chatglm(folder: Path, values: dict[str, Any]) -> str:
    if values.get('rope_ratio', 1) != 1:
        raise ModelError(
            f'{folder} has rope_ratio={values["rope_ratio"]}: chatglm3 multiplies the rotary base by it, chatglm2 '
            f'divides the positions by it, and config.json does not tell which it is; {HOW}'
        )
    code = folder / 'tokenization_chatglm.py'
    if code.is_file():
        return 'chatglm3' if '<|observation|>' in code.read_text(encoding='utf-8') else 'chatglm2'
    named = read_json(folder / 'tokenizer_config.json').get('name_or_path')
    for text in (values.get('_name_or_path'), named, folder.resolve().name):
        found = re.search(r'chatglm([23])', str(text or '').lower().replace('_', '').replace('-', ''))
        if found:
            return f'chatglm{found[1]}'
    raise ModelError(f'{folder} may be chatglm2 or chatglm3, whose chat tokens differ, and nothing in it tells: {HOW}')
