"""Sentencepiece files with other settings are converted exactly, or refused."""

import pytest
from transformers import AutoTokenizer

from xtune.errors import ModelError
from xtune.models.legacy import bpe
from xtune.models.legacy.sentencepiece_file import read_sentencepiece
from xtune.models.legacy.tokenizers import legacy_tokenizer


def sentencepiece_model(path, **options):
    import sentencepiece

    text = path.with_suffix('.txt')
    lines = [f'some words about  number {i} and   letter {chr(97 + i % 26)}' for i in range(300)]
    text.write_text('\n'.join(lines))
    settings = (
        dict(model_type='bpe', normalization_rule_name='identity', remove_extra_whitespaces=False, byte_fallback=True)
        | options
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path), vocab_size=400, hard_vocab_limit=False, **settings
    )
    return path.with_suffix('.model')


@pytest.mark.parametrize('symbols', (['▁▁▁', '▁▁'], ['\t', '▁a'], ['  '], ['<eoh>', '<eoa>']))
def test_user_defined_symbols_match_where_sentencepiece_matches_them(symbols, tmp_path):
    import sentencepiece

    path = sentencepiece_model(tmp_path / 'own', user_defined_symbols=symbols, add_dummy_prefix=False)
    made = bpe.from_sentencepiece(path, read_sentencepiece(path))
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in ('a  b   c    d', '\t\ta\t b', '<eoh>a<eoa> <eoh', '  ', ' a a  a'):
        assert made.encode(text, add_special_tokens=False).ids == original.encode(text), text


def test_a_difference_from_sentencepiece_is_refused(tmp_path):
    path = sentencepiece_model(tmp_path / 'tabs', user_defined_symbols=['\t'], add_dummy_prefix=True)
    with pytest.raises(ModelError, match='tabs'):
        bpe.from_sentencepiece(path, read_sentencepiece(path))


UNSUPPORTED = [
    (dict(model_type='unigram'), 'BPE'),
    (dict(normalization_rule_name='nmt_nfkc'), '`nmt_nfkc`'),
    (dict(remove_extra_whitespaces=True), 'removes spaces'),
    (dict(treat_whitespace_as_suffix=True), 'after words'),
]


@pytest.mark.parametrize('options, message', UNSUPPORTED)
def test_unsupported_sentencepiece_models_are_refused(options, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        read_sentencepiece(sentencepiece_model(tmp_path / 'other', **options))


OTHER_SETTINGS = [
    dict(),
    dict(add_dummy_prefix=True),
    dict(byte_fallback=False, character_coverage=0.98),
    dict(byte_fallback=False, add_dummy_prefix=True, unk_surface='?'),
    dict(unk_piece='[UNK]', bos_piece='[BOS]', eos_piece='[EOS]'),
    dict(unk_id=3, bos_id=1, eos_id=2, pad_id=0),
    dict(user_defined_symbols=['ab', 'abc', 'bcd']),
    dict(split_digits=True, split_by_whitespace=False),
]
NASTY = (
    *bpe.TEST_TEXTS,
    '👨‍👩‍👧🇨🇳',
    '\u202eשלום\u0301',
    '\u3000\u00a0',
    'ab abc abcd',
    '    \n\t\n  x',
    '\U0010ffff',
    '⁇',
    'x' * 300,
)


@pytest.mark.parametrize('settings', OTHER_SETTINGS)
def test_other_vocabularies_give_the_ids_and_texts_of_sentencepiece(settings, with_tokenizer, tmp_path):
    import sentencepiece

    folder = with_tokenizer('internlm_7b')
    path = sentencepiece_model(tmp_path / 'own', **(dict(add_dummy_prefix=False) | settings))
    path.replace(folder / 'tokenizer.model')
    (folder / 'tokenizer_config.json').write_text('{"add_bos_token": false}')
    original = sentencepiece.SentencePieceProcessor(model_file=str(folder / 'tokenizer.model'))
    legacy_tokenizer(folder).save_pretrained(tmp_path / 'saved')
    for made in (legacy_tokenizer(folder), AutoTokenizer.from_pretrained(tmp_path / 'saved')):
        for text in NASTY:
            ids = original.encode(text)
            assert made(text, add_special_tokens=False, split_special_tokens=True)['input_ids'] == ids, text
            assert made.decode(ids) == original.decode(ids), text
        assert (made.bos_token_id, made.eos_token_id) == (original.bos_id(), original.eos_id())
