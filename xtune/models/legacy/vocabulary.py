"""What each family adds to its converted vocabulary: special tokens, chat marks, and what starts and ends a text."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from ...errors import ModelError
from .bpe import byte_level, compare_with_ranks, from_sentencepiece, let_start_with, read_ranks
from .recognise import read_json
from .sentencepiece_file import SentencePieceFile, read_sentencepiece

_BAICHUAN_MARKS = {f'<reserved_{number}>' for number in (102, 103, 106, 107)}
_GLM_HIDDEN = ('[MASK]', '[gMASK]', '[sMASK]', 'sop', 'eop')
_GLM_ROLES = ('<|system|>', '<|user|>', '<|assistant|>', '<|observation|>')


def build_tokenizer(folder: Path, source: Path, variant: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder, without chat template, made of the vocabulary in `source`.

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
    _add_ends(tokenizer, names, bool(settings.get('add_bos_token', True)), bool(settings.get('add_eos_token', False)))
    generation = read_json(folder / 'generation_config.json')
    marks = [generation[key] for key in ('user_token_id', 'assistant_token_id') if isinstance(generation.get(key), int)]
    if any(not 0 <= mark < len(file.pieces) for mark in marks):
        raise ModelError(f'{folder}/generation_config.json names the chat tokens {marks}, {source} has fewer pieces')
    texts = {file.pieces[mark].text for mark in marks} | ({p.text for p in file.pieces} & _BAICHUAN_MARKS)
    # The repository puts in their ids; text of a template reaches them only as added tokens.
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in sorted(texts)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **_limits(settings))


def _add_listed(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    """Add the tokens that somebody added to the original tokenizer, under the ids that they have there."""
    listed = {text: (int(number), False) for text, number in read_json(folder / 'added_tokens.json').items()}
    for number, token in (settings.get('added_tokens_decoder') or {}).items():
        listed[token['content']] = int(number), bool(token.get('special', False))
    for text, (number, special) in sorted(listed.items(), key=lambda item: item[1]):
        if tokenizer.token_to_id(text) is None:
            tokenizer.add_tokens([AddedToken(text, normalized=False, special=special)])
        if tokenizer.token_to_id(text) != number:
            raise ModelError(
                f'{folder}: the added token {text!r} has id {number}, which would be {tokenizer.token_to_id(text)} here'
            )


def _special_names(
    folder: Path, tokenizer: Tokenizer, settings: dict[str, Any], file: SentencePieceFile, pad: str
) -> dict[str, str]:
    names = dict(unk_token=file.unknown, bos_token=file.bos, eos_token=file.eos, pad_token=pad)
    for key in names:
        given = settings.get(key)
        names[key] = (given.get('content') if isinstance(given, dict) else given) or names[key]
        if tokenizer.token_to_id(names[key]) is None:
            raise ModelError(f'{folder}: its {key} {names[key]!r} is no token of its tokenizer')
    return names


def _add_ends(tokenizer: Tokenizer, names: dict[str, str], bos: bool, eos: bool) -> None:
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
    """Number the tokens that follow the file's, and let every sequence start with [gMASK] sop."""
    content = json.loads(tokenizer.to_str())
    vocab = content['model']['vocab']
    taken = [name for name in _GLM_HIDDEN if name in vocab]
    if taken:
        raise ModelError(f'tokenizer.model holds {taken} itself, where ChatGLM numbers them after its pieces')
    vocab.update({name: len(file.pieces) + i for i, name in enumerate(_GLM_HIDDEN)})
    tokenizer = Tokenizer.from_str(json.dumps(content))
    let_start_with(tokenizer, ('[gMASK]', 'sop'))
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
    made = Qwen2Tokenizer(vocab=vocab, merges=merges, **_limits(read_json(folder / 'tokenizer_config.json')))
    pattern = json.loads(made.backend_tokenizer.to_str())['pre_tokenizer']['pretokenizers'][0]['pattern']['Regex']
    compare_with_ranks(source, made.backend_tokenizer, ranks, pattern)
    made.add_tokens([AddedToken(name, normalized=False, special=True) for name in names], special_tokens=True)
    return made


def _limits(settings: dict[str, Any]) -> dict[str, Any]:
    length = settings.get('model_max_length')
    return dict(model_max_length=int(length)) if isinstance(length, (int, float)) else {}
