"""`log-dataset` and `check-custom-dataset` show tokens and figures of the training data; nothing hostile gets out."""

import re
from html.parser import HTMLParser

import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.collate import collate
from xtune.inspection.page import MAX_SEQUENCES

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror=alert(2)></main> [bold]x[/bold] [/] :smile: {{ 7*7 }} '
    '\x1b[31mred\x1b]0;title\x07 \x9b31m \u202eevil\u2066 zero\u200bwidth 😀 你好 \r <|im_end|> &amp; "quoted"'
)
SHORT = [
    {'instruction': 'Add 1 and 2.', 'output': 'It is 3.'},
    {'instruction': 'Name a colour, please.', 'output': 'Blue.\nOr 绿.'},
]
COMMANDING = re.compile('[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]')


class Page(HTMLParser):
    """Elements of a page, its text, and the ids and text of each trained and other token."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.ids, self.trained, self.text, self.titles = [], [], [], '', []
        self._open = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        if tag not in ('meta', 'input', 'br'):
            self._open.append(tag)
        if tag == 'i' and 'data-i' in dict(attrs):
            ids = [int(i) for i in dict(attrs)['data-i'].split()]
            self.ids += ids
            self.trained += ['mark' in self._open] * len(ids)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != 'style':
            self.text += data
        if self._open and self._open[-1] == 'h4':
            self.titles.append(data)


def built(config):
    return build_data_of(wire(load(config), 'run'))


def shown_ids(out):
    return [int(i) for group in re.findall('‹([0-9 ]+)›', out) for i in group.split()]


def test_terminal_shows_samples_with_place_and_statistics(make_config, xtune, write, tmp_path):
    code, out, err = xtune('log-dataset', make_config(pack=False, **write(SHORT)))
    path = tmp_path / 'rows.json'
    assert (code, err) == (0, '')
    assert [line for line in out.splitlines() if not line.startswith('green:')] == [
        f'{" sequence 1: 23 tokens, 6 trained ":─^80}',
        f'[{path}, row 1]',
        '<|im_start|>user',
        'Add 1 and 2.<|im_end|>',
        '<|im_start|>assistant',
        '⟦It is 3.<|im_end|>⟧',
        '',
        f'{" sequence 2: 25 tokens, 9 trained ":─^80}',
        f'[{path}, row 2]',
        '<|im_start|>user',
        'Name a colour, please.<|im_end|>',
        '<|im_start|>assistant',
        '⟦Blue.',
        'Or 绿.<|im_end|>⟧',
        '',
        '─' * 80,
        f'data       {path} as alpaca: 2 rows -> 2 samples, 48 tokens (31% trained)',
        'packing    none: 2 sequences, 18.8% full if padded to max_length=128',
        'template   chatml (stop token <|im_end|>)',
        'sequences  2 sequences of 2 samples, 18.8% of 128 tokens full',
        'lengths    min 23, median 25, p95 25, max 25, mean 24.0 tokens',
        'trained    31.2% of the tokens',
        'tokens     23  1 ████████████████████████████████████████',
        '           24  0',
        '           25  1 ████████████████████████████████████████',
    ]


def test_zero_rows_show_statistics_and_too_many_rows_show_all(make_config, xtune, write):
    config = make_config(pack=False, **write(SHORT))
    code, out, _ = xtune('log-dataset', config, '--rows', 0)
    assert code == 0 and 'sequence 1' not in out and '<|im_start|>' not in out and out.startswith('data  ')
    code, out, _ = xtune('log-dataset', config, '--rows', 1)
    assert code == 0 and 'row 1]' in out and 'row 2]' not in out and 'more than there is' not in out
    code, out, _ = xtune('log-dataset', config, '--rows', 5000)
    assert code == 0 and 'row 2]' in out
    assert '--rows 5,000' in out and '2 sequences' in out


@pytest.mark.parametrize('rows', ['-1', '1.5', 'many', '9' * 30, '1000001', '²'])
def test_invalid_rows_are_refused(make_config, xtune, rows):
    code, out, err = xtune('log-dataset', make_config(), f'--rows={rows}')
    assert code == 2 and not out and '--rows' in err and repr(str(rows)) in err and '1,000,000' in err


@pytest.mark.parametrize('mode', ['fit', 'exact', 'stream', False])
def test_shown_ids_and_colors_match_the_model_inputs(make_config, xtune, write, mode, tmp_path):
    config = make_config(
        pack=mode, max_length=48, **write([*SHORT, {'instruction': HOSTILE[:20], 'output': '好😀'}] * 3)
    )
    page = tmp_path / 'page.html'
    code, out, _ = xtune('log-dataset', config, '--ids', '--rows', 100)
    assert code == 0 and xtune('log-dataset', config, '--html', page, '--rows', 100)[0] == 0
    data, parsed = built(config), Page(page.read_text(encoding='utf-8'))
    batches = [
        collate(data.train.store, [data.train.sequences[i]], 0, data.train.sequences.concatenated)
        for i in range(len(data.train.sequences))
    ]
    ids = [i for batch in batches for i in batch.input_ids[0].tolist()]
    assert shown_ids(out) == ids == parsed.ids
    # A token is trained if the one before it has a target, which may stand in the sequence before.
    assert sum(parsed.trained) == sum(batch.num_targets for batch in batches)
    if mode in ('fit', False):
        targets = [t for batch in batches for t in [-100, *batch.targets[0, :-1].tolist()]]
        assert parsed.trained == [t != -100 for t in targets]


def test_packed_samples_are_separate_and_split_ones_show_their_range(make_config, xtune, write, tmp_path):
    rows = [{'instruction': f'Row {i}.', 'output': 'word ' * 12} for i in range(6)]
    page = tmp_path / 'page.html'
    config = make_config(pack='exact', max_length=50, **write(rows))
    xtune('log-dataset', config, '--html', page, '--rows', 9)
    code, out, _ = xtune('log-dataset', config, '--rows', 9)
    titles = re.findall(r'^\[.*rows\.json, (.*)\]$', out, re.M)
    assert code == 0 and [title.split('rows.json, ')[1] for title in Page(page.read_text()).titles] == titles
    data = built(config)
    total = int(data.train.store.lengths[0])
    expected = []
    for sample, first, end in data.train.sequences.ranges.tolist():
        cut = '' if (first, end) == (0, total) else f', tokens {first + 1}-{end} of {total}'
        expected.append(f'row {sample + 1}{cut}')
    assert titles == expected and any(', tokens 1-' in title for title in titles)
    code, out, _ = xtune('log-dataset', make_config(pack='fit', max_length=128, **write(rows)), '--rows', 1)
    assert out.count('⟦') == out.count('⟧')
    assert len(re.findall(r'^\[.*rows\.json, row \d\]$', out, re.M)) == 128 // total


def test_control_characters_and_html_are_escaped(make_config, xtune, write, tmp_path):
    name = 'x\x1b[31m<b>[red]\u202e.json'
    options = write([{'instruction': HOSTILE, 'output': HOSTILE}] * 30 + [{'instruction': HOSTILE, 'output': ''}], name)
    config = make_config(max_length=512, pack=False, **options)
    page = tmp_path / 'page.html'
    for command in (
        ['log-dataset'],
        ['log-dataset', '--ids'],
        ['check-custom-dataset'],
        ['log-dataset', '--html', page],
    ):
        code, out, err = xtune(command[0], config, *command[1:])
        assert (code, err) == (0, '') and not COMMANDING.search(out), command
        assert r'x\x1b[31m<b>[red]\u202e.json' in out
    _, out, _ = xtune('log-dataset', config, '--rows', 1)
    for kept in (
        '<img src=x onerror=alert(2)>',
        '[bold]x[/bold] [/] :smile: {{ 7*7 }}',
        '😀 你好',
        '<|im_end|> &amp; "quoted"',
    ):
        assert kept in out
    assert r'\x1b[31mred\x1b]0;title\x07 \x9b31m \u202eevil\u2066 zero\u200bwidth' in out and r'\x0d' in out
    html = page.read_text(encoding='utf-8')
    parsed = Page(html)
    assert not {'script', 'img', 'b'} & set(parsed.elements) and not COMMANDING.search(html)
    assert '<img src=x onerror=alert(2)></main> [bold]x[/bold]' in parsed.text and '{{ 7*7 }}' in parsed.text
    assert 'U+001B[31mredU+001B]0;titleU+0007' in parsed.text and 'U+202EevilU+2066 zeroU+200Bwidth' in parsed.text
    assert 'special' not in re.search('<i[^>]*>&lt;\\|</i>|<i[^>]*>&lt;</i><i[^>]*>\\|</i>', html).group()


def test_page_is_complete_without_external_resources(make_config, xtune, tmp_path):
    page = tmp_path / 'new' / 'page.html'
    code, out, _ = xtune('log-dataset', make_config(), '--html', page, '--rows', 2)
    html = page.read_text(encoding='utf-8')
    assert code == 0 and f'wrote      {page} with 2 sequences\n' in out and '<|im_start|>' not in out
    assert list(page.parent.iterdir()) == [page]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html and '<html lang="en">' in html
    assert not re.search(r'https?:|url\(|@import|\s(src|href|srcset|on\w+)\s*=', html)
    parsed = Page(html)
    assert (
        parsed.elements.count('article') == 2
        and parsed.elements.count('input') == 2
        and parsed.elements.count('h1') == 1
    )
    assert 'run: training data' in parsed.text and '2 of 6 sequences.' in parsed.text


def test_page_path_must_not_be_a_folder(make_config, xtune, tmp_path):
    code, out, err = xtune('log-dataset', make_config(), '--html', tmp_path)
    assert code == 2 and not out and f'--html {tmp_path} is a folder' in err


def test_a_page_stays_small_enough_to_open(make_config, xtune, write, tmp_path):
    rows = [{'instruction': f'{i}', 'output': 'a'} for i in range(MAX_SEQUENCES + 30)]
    page = tmp_path / 'page.html'
    code, out, _ = xtune('log-dataset', make_config(pack=False, **write(rows)), '--html', page, '--rows', 225)
    parsed = Page(page.read_text(encoding='utf-8'))
    assert code == 0 and '200 sequences' in out and '225' in out
    assert '200 of 230 sequences; 225 were requested' in parsed.text and parsed.elements.count('article') == 200


def test_a_page_stays_small_with_long_sequences(make_config, write, monkeypatch):
    import xtune.inspection.page as page

    split = built(make_config(pack=False, **write([{'instruction': 'a', 'output': 'word ' * 40}] * 9))).train
    one = int(split.sequences.lengths[0])
    assert [page.fitting_count(split, rows, 4 * one) for rows in (0, 3, 9)] == [0, 3, 4]
    assert page.fitting_count(split, 9, one - 1) == 1


def test_validation_data_can_be_shown(make_config, xtune, write, tmp_path):
    write([{'instruction': 'Held out?', 'output': 'Yes.'}], 'val.json')
    code, out, _ = xtune('log-dataset', make_config(val_dataset={'path': str(tmp_path / 'val.json')}), '--val')
    assert code == 0 and 'Held out?' in out and 'val.json, row 1]' in out and 'What is' not in out
    assert 'sequences  1 sequence of 1 sample,' in out
    code, out, err = xtune('log-dataset', make_config(val_dataset=4), '--val', '--rows', 9)
    assert code == 0 and len(re.findall(r'^\[.*alpaca\.json, row \d+\]$', out, re.M)) == 4, err
    code, out, err = xtune('log-dataset', make_config(), '--val')
    assert code == 2 and not out and 'val_dataset' in err
