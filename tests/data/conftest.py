"""Tokenizers of each family that models use, made here within seconds.

`kind` runs a test with each of them. A `family` is one of them with the special tokens of one template.
"""

import copy
import json
import re
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.templates.resolve import resolve

ROOT = Path(__file__).parents[2]
SMOL, BYTES, LLAMA3 = 'SmolLM2', 'byte by byte, slow', 'Llama 3'
SENTENCEPIECE = ['Llama 2', 'Llama 2 legacy', 'space always', 'space first', 'Baichuan, slow', 'Unigram']
KINDS = [SMOL, LLAMA3, *SENTENCEPIECE, BYTES]
# These write a space behind each special token, so a reply behind one begins with it.
SPACED = ['Llama 2 legacy', 'space always', 'Baichuan, slow']
LLAMA2 = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r'\s+(?!\S)|\s+'
)
CHATML = ['<|im_start|>', '<|im_end|>']
SPECIAL = {
    'chatml': CHATML,
    'qwen_chat': CHATML,
    'internlm2_chat': [*CHATML, '<|plugin|>', '<|action_start|>', '<|action_end|>'],
    'llama3_chat': ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
    'phi3_chat': ['<|system|>', '<|user|>', '<|assistant|>', '<|end|>'],
    'gemma': ['<start_of_turn>', '<end_of_turn>'],
    'mistral_v3': ['[INST]', '[/INST]', '[TOOL_CALLS]', '[AVAILABLE_TOOLS]', '[/AVAILABLE_TOOLS]', '[TOOL_RESULTS]'],
    'deepseek_coder': ['<|EOT|>'],
    'internlm_chat': ['<eoa>'],
    'code_llama_70b_chat': ['<step>'],
    'cohere_chat': ['<|START_OF_TURN_TOKEN|>', '<|END_OF_TURN_TOKEN|>', '<|USER_TOKEN|>', '<|CHATBOT_TOKEN|>'],
    'chatglm3': ['[gMASK]', 'sop', '<|system|>', '<|user|>', '<|assistant|>', '<|observation|>'],
    'baichuan_chat': ['<reserved_102>', '<reserved_103>'],
    'baichuan2_chat': ['<reserved_106>', '<reserved_107>'],
}


@pytest.fixture(scope='session', params=KINDS)
def kind(request):
    """The name of a tokenizer."""
    return request.param


@pytest.fixture(scope='session')
def make(corpus, tokenizer, tmp_path_factory):
    """Return a function that gives a tokenizer of its own: kind, then special tokens to add."""
    made = {}

    def _make(kind, special=()):
        if kind not in made:
            made[kind] = _new(kind, corpus, tokenizer, tmp_path_factory)
        own = copy.deepcopy(made[kind])
        new = [token for token in special if token not in own.get_added_vocab()]
        own.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
        return own

    return _make


@pytest.fixture(scope='session')
def family(make):
    """Return a function (kind, template, control_tokens, more special tokens) that makes a `ChatTokenizer`."""

    @cache
    def _family(kind, name, mode='text', further=()):
        own = make(kind, [*SPECIAL.get(name, []), *further])
        return ChatTokenizer(own, resolve(name, own), mode)

    return _family


@pytest.fixture(scope='session')
def written():
    """Return a function: tokenizer -> what says the text of ids; unlike `decode`, it leaves out no space."""

    def _written(tokenizer):
        if '<0x0A>' not in tokenizer.get_vocab():
            return lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        byte = re.compile('<0x([0-9A-F]{2})>')

        def say(ids):
            tokens = [(t, byte.fullmatch(t)) for t in tokenizer.convert_ids_to_tokens(list(ids))]
            return b''.join(bytes.fromhex(m[1]) if m else t.replace('▁', ' ').encode() for t, m in tokens).decode()

        return say

    return _written


@pytest.fixture(scope='session')
def spaced():
    """Return a function that tells whether a kind puts a space behind special tokens."""
    return SPACED.__contains__


@pytest.fixture(scope='session')
def corpus():
    """Lines of English, Chinese, Markdown and JSON."""
    files = [ROOT / 'README.md', ROOT / 'README_zh.md', *sorted((ROOT / 'docs' / 'en').glob('*.md'))]
    files += sorted((Path(__file__).parent / 'files').glob('*.json'))
    return [line for file in files for line in file.read_text('utf-8').splitlines()]


def _new(kind, corpus, smol, tmp_path_factory):
    if kind == SMOL:
        own = copy.deepcopy(smol)
        own.bos_token = '<|endoftext|>'  # its own opens turns too
        return own
    if kind == LLAMA3:
        return _byte_level(corpus)
    if kind.startswith('space '):
        return _metaspace(corpus, kind.removeprefix('space '))
    if kind == BYTES:
        eos = AddedToken('</s>', special=True, normalized=False)
        return ByT5Tokenizer(eos_token=eos, extra_ids=0)
    model = tmp_path_factory.mktemp('model') / 'tokenizer.model'
    _train_sentencepiece(model, corpus, 'unigram' if kind == 'Unigram' else 'bpe')
    if kind == 'Baichuan, slow':
        return SentencePieceBackend(vocab_file=str(model), **LLAMA2)
    if kind == 'Unigram':
        return _unigram(model)
    # As on the hub: transformers builds the fast tokenizer itself.
    own = {'tokenizer_class': 'LlamaTokenizer', 'legacy': kind.endswith('legacy'), 'add_bos_token': True, **LLAMA2}
    (model.parent / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
    (model.parent / 'tokenizer_config.json').write_text(json.dumps(own))
    return AutoTokenizer.from_pretrained(model.parent)


def _train_sentencepiece(path, corpus, kind):
    """Train a model as Llama 2's: bytes for unknown characters, a space before the text, all space kept."""
    with open(path, 'wb') as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=file,
            model_type=kind,
            vocab_size=1500,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            remove_extra_whitespaces=False,
            normalization_rule_name='identity',
            num_threads=1,
            minloglevel=2,
        )


def _unigram(model):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    backend = Tokenizer(models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first', split=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **LLAMA2)


def _metaspace(corpus, scheme):
    """Return a BPE with a space before each ('always') or the first ('first') text between special tokens."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token='<unk>', fuse_unk=True))
    # Merges are learned inside words, or whole lines would be tokens.
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    special = [*LLAMA2.values(), *(f'<0x{byte:02X}>' for byte in range(256))]
    backend.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    state = json.loads(backend.to_str())
    state['added_tokens'] = [token for token in state['added_tokens'] if not token['content'].startswith('<0x')]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **LLAMA2)


def _byte_level(corpus):
    """Return a byte-level BPE that splits as Llama 3 does."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), 'isolated')
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([line + '\n' * (1 + i % 3) for i, line in enumerate(corpus)], trainer)
    ends = {'bos_token': '<|begin_of_text|>', 'eos_token': '<|end_of_text|>'}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ends)
