"""Small tokenizers with the special tokens of each model family, trained on the example rows.

`tokenizers.json` has an entry per family. `kind` is 'bytes' (byte-level BPE, like Qwen, Llama 3 and StarCoder) or
'pieces' (BPE with ▁ for spaces and byte fallback, like SentencePiece). `first` is prepended to each text.
`plain_tokens` are added tokens that are not special tokens.
"""

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .example_rows import tokenizer_texts
from .small_configs import HERE, entries

_NUM_MERGES = 320
_WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@cache
def toy_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer `name` of tokenizers.json."""
    family = entries('tokenizers.json')[name]
    tokenizer = _byte_level() if family['kind'] == 'bytes' else _sentencepiece(family)
    roles = {f'{role}_token': family.get(role) for role in ('bos', 'eos', 'pad', 'unk')}
    special_tokens = dict.fromkeys([*filter(None, roles.values()), *family.get('special', ())])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special_tokens])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in family.get('plain_tokens', ())])
    if family['first']:
        ids = [(text, tokenizer.token_to_id(text)) for text in family['first']]
        start = ' '.join(family['first'])
        steps = [processors.TemplateProcessing(single=f'{start} $A', pair=f'{start} $A $B:1', special_tokens=ids)]
        if tokenizer.post_processor is not None:
            steps.insert(0, tokenizer.post_processor)
        tokenizer.post_processor = processors.Sequence(steps)
    role_tokens: dict[str, Any] = {role: text for role, text in roles.items() if text}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=_template(family), **role_tokens)


def _template(family: dict[str, Any]) -> str | None:
    name = family.get('template')
    return (HERE / 'templates' / f'{name}.jinja').read_text(encoding='utf-8').rstrip('\n') if name else None


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_WORD_PATTERN), 'isolated')
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        tokenizer_texts(),
        trainers.BpeTrainer(vocab_size=256 + _NUM_MERGES, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(family: dict[str, Any]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        tokenizer_texts(), trainers.BpeTrainer(vocab_size=256 + _NUM_MERGES, show_progress=False)
    )
    bpe = json.loads(trained.to_str())['model']
    merges = [tuple(pair) for pair in bpe['merges']]
    start = [family['unk'], *(f'<0x{byte:02X}>' for byte in range(256))]
    vocab = {text: number for number, text in enumerate(dict.fromkeys([*start, *bpe['vocab']]))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=family['unk'], fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    return tokenizer
