"""Add each family's special tokens, chat tokens, and bos and eos rules to its converted vocabulary."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from ...errors import ModelError
from ..loading.json_files import read_json
from .bpe import allow_prefix_tokens, byte_level, compare_with_ranks, from_sentencepiece, read_ranks
from .sentencepiece_file import SentencePieceFile, read_sentencepiece

_BAICHUAN_CHAT_TOKENS = {f'<reserved_{number}>' for number in (102, 103, 106, 107)}
_GLM_TOKENS = ('[MASK]', '[gMASK]', '[sMASK]', 'sop', 'eop')
_GLM_ROLES = ('<|system|>', '<|user|>', '<|assistant|>', '<|observation|>')


def build_tokenizer(folder: Path, source: Path, variant: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder, built from the vocabulary in `source`, without a chat template.

    Raises:
        ModelError: A file is damaged, or cannot be converted exactly.
    """
    return (_qwen if variant == 'qwen' else _sentencepiece)(folder, source, variant)


def _sentencepiece(folder: Path, source: Path, variant: str) -> PreTrainedTokenizerBase:
    file = read_sentencepiece(source)
    tokenizer = from_sentencepiece(source, file)
    settings = read_json(folder / 'special_tokens_map.json') | read_json(folder / 'tokenizer_config.json')
    if variant.startswith('chatglm'):
        return _chatglm(folder, tokenizer, file, variant, settings)
    _add_listed(folder, tokenizer, settings)
    names = _special_names(folder, tokenizer, settings, file, file.eos if variant == 'internlm' else file.unknown)
    add_bos, add_eos = bool(settings.get('add_bos_token', True)), bool(settings.get('add_eos_token', False))
    _add_bos_and_eos(tokenizer, names, add_bos, add_eos)
    generation = read_json(folder / 'generation_config.json')
    ids = [generation[key] for key in ('user_token_id', 'assistant_token_id') if isinstance(generation.get(key), int)]
    if any(not 0 <= token_id < len(file.pieces) for token_id in ids):
        raise ModelError(f'{folder}/generation_config.json names the chat tokens {ids}, but {source} has fewer pieces')
    texts = {file.pieces[i].text for i in ids} | ({p.text for p in file.pieces} & _BAICHUAN_CHAT_TOKENS)
    # The repository's code inserts their ids; the text of a chat template matches only added tokens.
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in sorted(texts)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **_limits(settings))


def _add_listed(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    """Add the tokens that were added to the original tokenizer, with the same ids."""
    listed = {text: (int(number), False) for text, number in read_json(folder / 'added_tokens.json').items()}
    for number, token in (settings.get('added_tokens_decoder') or {}).items():
        listed[token['content']] = int(number), bool(token.get('special', False))
    for text, (number, special) in sorted(listed.items(), key=lambda item: item[1]):
        if tokenizer.token_to_id(text) is None:
            tokenizer.add_tokens([AddedToken(text, normalized=False, special=special)])
        if tokenizer.token_to_id(text) != number:
            raise ModelError(
                f'{folder}: the added token {text!r} has the id {number}, but would get {tokenizer.token_to_id(text)}'
            )


def _special_names(
    folder: Path, tokenizer: Tokenizer, settings: dict[str, Any], file: SentencePieceFile, pad: str
) -> dict[str, str]:
    names = dict(unk_token=file.unknown, bos_token=file.bos, eos_token=file.eos, pad_token=pad)
    for key in names:
        token = settings.get(key)
        names[key] = (token.get('content') if isinstance(token, dict) else token) or names[key]
        if tokenizer.token_to_id(names[key]) is None:
            raise ModelError(f'{folder}: its {key} {names[key]!r} is not a token of its tokenizer')
    return names


def _add_bos_and_eos(tokenizer: Tokenizer, names: dict[str, str], bos: bool, eos: bool) -> None:
    first, last = [names['bos_token']] * bos, [names['eos_token']] * eos
    used = {name: tokenizer.token_to_id(name) for name in (*first, *last)}
    if used:
        tokenizer.post_processor = TemplateProcessing(
            single=[*first, '$A', *last],
            pair=[*first, '$A', *last, *(f'{n}:1' for n in first), '$B:1', *(f'{n}:1' for n in last)],
            special_tokens=list(used.items()),
        )


def _chatglm(
    folder: Path, tokenizer: Tokenizer, file: SentencePieceFile, variant: str, settings: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Add ChatGLM's tokens after those of the file, and prepend [gMASK] sop to every sequence."""
    content = json.loads(tokenizer.to_str())
    vocab = content['model']['vocab']
    conflicts = [name for name in _GLM_TOKENS if name in vocab]
    if conflicts:
        raise ModelError(f'tokenizer.model already contains {conflicts}, which ChatGLM adds after its pieces')
    vocab.update({name: len(file.pieces) + i for i, name in enumerate(_GLM_TOKENS)})
    tokenizer = Tokenizer.from_str(json.dumps(content))
    allow_prefix_tokens(tokenizer, ('[gMASK]', 'sop'))
    if variant == 'chatglm3':
        tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in _GLM_ROLES])
    _add_listed(folder, tokenizer, settings)
    tokenizer.post_processor = TemplateProcessing(
        single=['[gMASK]', 'sop', '$A'],
        pair=['[gMASK]', 'sop', '$A', '$B:1'],
        special_tokens=[(name, vocab[name]) for name in ('[gMASK]', 'sop')],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=file.unknown,
        pad_token=file.unknown,
        eos_token=file.eos,
        padding_side='left',
        **_limits(settings),
    )


def _qwen(folder: Path, source: Path, variant: str) -> PreTrainedTokenizerBase:
    ranks = read_ranks(source)
    vocab, merges = byte_level(ranks)
    names = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', *(f'<|extra_{i}|>' for i in range(205))]
    vocab |= {name: len(ranks) + i for i, name in enumerate(names)}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, **_limits(read_json(folder / 'tokenizer_config.json')))
    pattern = json.loads(tokenizer.backend_tokenizer.to_str())['pre_tokenizer']['pretokenizers'][0]['pattern']['Regex']
    compare_with_ranks(source, tokenizer.backend_tokenizer, ranks, pattern)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in names], special_tokens=True)
    return tokenizer


def _limits(settings: dict[str, Any]) -> dict[str, Any]:
    length = settings.get('model_max_length')
    return dict(model_max_length=int(length)) if isinstance(length, (int, float)) else {}
