"""Tokens become whole characters, hidden characters visible, lengths figures."""

import numpy as np
import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.encode import Sample
from xtune.data.packing import pack
from xtune.data.split import Split
from xtune.data.stream import MemoryStore
from xtune.inspection.statistics import histogram, length_text, trained_share
from xtune.inspection.terminal import colored_text, histogram_lines
from xtune.inspection.view import Viewer
from xtune.utils.visible import parts, visible


def viewer(tokenizer, samples, mode='none', max_length=64):
    """A viewer of samples (ids, trained spans)."""
    made = [Sample(np.array(ids, np.int32), spans, [True] * len(spans)) for ids, spans in samples]
    store = MemoryStore(made, [f'row {i + 1}' for i in range(len(made))])
    split = Split(store, pack(mode, store.lengths, np.arange(len(made)), max_length, 0), [], [])
    return Viewer(split, tokenizer)


def test_the_shares_of_held_out_data_are_counted_from_its_tokens(make_config):
    data = build_data_of(wire(load(make_config(val_dataset=4, pack=False)), 'run'))
    store, samples = data.val.store, data.val.sequences.ranges[:, 0].tolist()
    trained = sum(int(end - max(start, 1)) for i in samples for start, end in store.spans(i))
    assert trained_share(data.val) == pytest.approx(trained / sum(len(store.ids(i)) for i in samples))
    assert trained_share(data.train) == pytest.approx(
        data.train.reports[0].trained_tokens / data.train.reports[0].tokens
    )


TEXTS = ['Hello 你好 😀 wörld', '👩‍💻👨‍👩‍👧', 'ascii only', 'ﷺ𝔘𝔫𝔦 \u202e', '한국어 กขค', 'a\n\n\nb\t c']


@pytest.mark.parametrize('text', TEXTS)
def test_tokens_are_shown_as_whole_characters(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    (segment,) = viewer(tokenizer, [(ids, [(0, len(ids))])]).sequence(0).segments
    assert ''.join(token.text for token in segment.tokens) == text
    assert [i for token in segment.tokens for i in token.ids] == ids
    assert all('\ufffd' not in token.text and token.kind == 'text' for token in segment.tokens)


def test_partial_characters_show_token_names_and_damaged_text_is_unchanged(tokenizer):
    ids = tokenizer('你', add_special_tokens=False)['input_ids']
    assert len(ids) == 2
    (segment,) = viewer(tokenizer, [([*ids[:1], 2, *ids], [(1, 4)])]).sequence(0).segments
    names = tokenizer.convert_ids_to_tokens(ids)
    assert [(t.text, t.kind) for t in segment.tokens] == [(names[0], 'part'), ('<|im_end|>', 'special'), ('你', 'text')]
    # The first token of a text is no target: a character that it begins belongs to what follows.
    sequence = viewer(tokenizer, [(ids, [(0, 2)])]).sequence(0)
    assert [(t.text, t.trained) for t in sequence.segments[0].tokens] == [('你', True)] and sequence.trained == 1
    damaged = tokenizer('a\ufffdb', add_special_tokens=False)['input_ids']
    (segment,) = viewer(tokenizer, [(damaged, [(1, 2)])]).sequence(0).segments
    assert [(t.text, t.kind) for t in segment.tokens] == [('a', 'text'), ('\ufffd', 'text'), ('b', 'text')]


def test_spaces_before_words_are_kept(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ['<unk>', '</s>', '▁Hello', '▁big', '▁world', '▁\ufffd']
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='<unk>'))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token='<unk>', eos_token='</s>')
    ids = tokenizer('Hello big world', add_special_tokens=False)['input_ids']
    assert tokenizer.decode(ids[1:2]) == 'big'
    (segment,) = viewer(tokenizer, [([*ids, 1], [(1, 4)])]).sequence(0).segments
    assert [t.text for t in segment.tokens] == ['Hello', ' big', ' world', '</s>']
    view = viewer(tokenizer, [([*ids, 1], [(1, 4)])], 'exact', max_length=2)
    assert [t.text for t in view.sequence(1).segments[0].tokens] == [' world', '</s>']


def test_the_first_token_of_a_text_is_trained_only_if_another_text_comes_before_it(tokenizer):
    samples = [([10, 11, 12], [(0, 3)])] * 2
    alone = viewer(tokenizer, samples, 'exact').sequence(0).segments
    joined = viewer(tokenizer, samples, 'stream').sequence(0).segments
    assert [[t.trained for t in segment.tokens] for segment in alone] == [[False, True, True]] * 2
    assert [[t.trained for t in segment.tokens] for segment in joined] == [[False, True, True], [True, True, True]]


def test_trained_text_is_green_and_ids_are_dim(tokenizer):
    ids = tokenizer('Hi you', add_special_tokens=False)['input_ids']
    (segment,) = viewer(tokenizer, [([*ids, 198, 2], [(1, 4)])]).sequence(0).segments
    text = colored_text(segment, with_ids=True)
    assert text.plain == f'Hi‹{ids[0]}›⟦ you‹{ids[1]}›↵‹198›\n<|im_end|>‹2›⟧'
    styled = [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]
    green = [(part, 'green') for part in ('⟦', ' you', '↵')] + [('<|im_end|>', 'bold green'), ('⟧', 'green')]
    assert [pair for pair in styled if 'green' in pair[1]] == green
    assert [part for part, style in styled if style == 'dim'] == [f'‹{i}›' for i in (*ids, 198, 2)]
    assert colored_text(segment).plain == 'Hi⟦ you\n<|im_end|>⟧'


@pytest.mark.parametrize(
    ('text', 'shown', 'chips'),
    [
        ('plain ü 你 😀', 'plain ü 你 😀', []),
        ('a\x1b\x7f\x85', r'a\x1b\x7f\x85', ['U+001B', 'U+007F', 'U+0085']),
        ('\u200b\u2028\ufeff\u3164', r'\u200b\u2028\ufeff\u3164', ['U+200B', 'U+2028', 'U+FEFF', 'U+3164']),
        ('\U000e0041\udc80', r'\U000e0041\udc80', ['U+E0041', 'U+DC80']),
        ('a\n\tb', r'a\x0a\x09b', []),
    ],
)
def test_hidden_characters_are_made_visible(text, shown, chips):
    assert visible(text) == shown and shown.isprintable()
    assert [part for kind, part in parts(text) if kind == 'chip'] == chips
    whole = ''.join(part if kind != 'chip' else chr(int(part[2:], 16)) for kind, part in parts(text))
    assert whole == text and visible('a\nb\t\x07', keep='\n\t') == 'a\nb\t\\x07'


@pytest.mark.parametrize(
    ('lengths', 'expected'),
    [
        ([7], [('7', 1)]),
        ([1, 2, 2, 10], [('1', 1), ('2', 2), *((str(n), 0) for n in range(3, 10)), ('10', 1)]),
        ([3, 12, 19, 20], [('2-3', 1), *((f'{n}-{n + 1}', 0) for n in range(4, 12, 2)), ('12-13', 1), ('14-15', 0)]),
        ([1, 2048], [('0-499', 1), ('500-999', 0), ('1,000-1,499', 0), ('1,500-1,999', 0), ('2,000-2,499', 1)]),
    ],
)
def test_histograms_count_every_sample_in_round_bins(lengths, expected):
    bins = histogram(np.array(lengths))
    assert [(one.name, one.count) for one in bins][: len(expected)] == expected
    assert sum(one.count for one in bins) == len(lengths) and len(bins) <= 10


def test_bars_are_proportional_and_never_empty():
    bins = histogram(np.array([1] * 400 + [2] * 200 + [4]))
    assert [text for _, text in histogram_lines(bins)] == [
        f'1  400 {"█" * 40}',
        f'2  200 {"█" * 20}',
        '3    0',
        '4    1 ▏',
    ]


def test_length_statistics():
    assert length_text(np.arange(1, 101)) == 'min 1, median 51, p95 96, max 100, mean 50.5 tokens'
