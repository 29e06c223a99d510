"""Tokenizers of each family that models use, made here within seconds: their token ids mean nothing, their habits do."""

import copy
import json
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

ROOT = Path(__file__).parents[2]
LLAMA3 = ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r'\s+(?!\S)|\s+'
)
# Tokens with which the data of these tests could be mistaken; each kind lacks some of them.
CHAT_TOKENS = ['<|im_start|>', '<|im_end|>']


@pytest.fixture(scope='session')
def corpus():
    """Lines of English, Chinese, Markdown and JSON."""
    files = [ROOT / 'README.md', ROOT / 'README_zh.md', *sorted((ROOT / 'docs' / 'en').glob('*.md'))]
    files += sorted((Path(__file__).parent / 'files').glob('*.json'))
    return [line for file in files for line in file.read_text('utf-8').splitlines()]


@pytest.fixture(scope='session')
def sentencepiece_model(corpus, tmp_path_factory):
    """The path of a model trained as Llama 2's: BPE, bytes for unknown characters, a space before the text."""
    path = tmp_path_factory.mktemp('sentencepiece') / 'tokenizer.model'
    with open(path, 'wb') as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=file,
            model_type='bpe',
            vocab_size=1500,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            remove_extra_whitespaces=False,
            normalization_rule_name='identity',
            num_threads=1,
            minloglevel=2,
        )
    return path


def saved(folder, model, **config):
    """Write a model folder as the hub has them and return its tokenizer."""
    folder.mkdir()
    (folder / 'tokenizer.model').write_bytes(model.read_bytes())
    (folder / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
    tokens = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    (folder / 'tokenizer_config.json').write_text(json.dumps({'tokenizer_class': 'LlamaTokenizer', **tokens, **config}))
    return AutoTokenizer.from_pretrained(folder)


def metaspace(corpus, scheme):
    """A sentencepiece-like model of `tokenizers`, with a space before each ('always') or the first ('first') piece."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token='<unk>', fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = decoders.Strip(content=' ', left=1)
    backend.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), strip])
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=['<unk>', '<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256))],
        show_progress=False,
    )
    # Merges stay inside words, or whole lines would be tokens.
    words = Tokenizer(backend.model)
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    words.train_from_iterator(corpus, trainer)
    trained = json.loads(words.to_str())
    trained['pre_tokenizer'] = json.loads(backend.to_str())['pre_tokenizer']
    trained['decoder'] = json.loads(backend.to_str())['decoder']
    trained['added_tokens'] = [token for token in trained['added_tokens'] if not token['content'].startswith('<0x')]
    tokens = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(trained)), **tokens)


def byte_level(corpus):
    """A byte-level BPE with the splits and special tokens of Llama 3."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), 'isolated')
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([line + '\n' * (1 + i % 3) for i, line in enumerate(corpus)], trainer)
    backend.add_special_tokens(LLAMA3)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=LLAMA3[0], eos_token=LLAMA3[1])
