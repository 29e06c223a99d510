"""Plain text mixed with chats, sources with their own template, and the units of text files."""

import gzip
import json
import re

import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.sections import Source
from xtune.config.wire import wire
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import ESCAPED, PLAIN_TEXT
from xtune.data.encoder_factory import EncoderFactory
from xtune.data.prepare import prepare
from xtune.data.readers import read_file
from xtune.engine.new_token_report import new_token_warning
from xtune.engine.summary import data_lines
from xtune.errors import DataError, TemplateError
from xtune.messages import exchange
from xtune.templates.resolve import resolve

CHAT = [{'messages': exchange(f'Say {i}.', f'{i}!')} for i in range(6)]
TEXT = [{'text': f'Pier {i} lies behind shed {i}.'} for i in range(6)]
BOOK = [
    f'In the evening the keeper of light number {i} climbed the stairs of the\ntower, and slept.' for i in range(20)
]


@pytest.fixture
def build(tmp_path, model_dir):
    """Return a function that builds the data of sources (rows or text, and options of the source) in chatml."""

    def build(*sources, val=None, **options):
        def placed(number, source):
            rows, given = source if isinstance(source, tuple) else (source, {})
            path = tmp_path / (f'{number}.txt' if isinstance(rows, str) else f'{number}.jsonl')
            content = rows if isinstance(rows, str) else ''.join(json.dumps(row) + '\n' for row in rows)
            if not path.is_file() or path.read_text() != content:
                path.write_text(content)
            return {'path': str(path), **given}

        small = {'base_model': str(model_dir), 'max_length': 64, 'data.num_proc': 1, 'pack': False}
        options = {key.replace('__', '.'): value for key, value in options.items()}
        data = {'train_dataset': [placed(number, source) for number, source in enumerate(sources)]}
        data |= {'val_dataset': placed('val', val)} if val else {}
        job = wire(load(find('smollm2_135m_lora_selfcog_e2'), small | data | options))
        return job, build_data_of(job)

    return build


@pytest.fixture
def prepared(tmp_path, tokenizer):
    """Return a function that prepares one source: the texts of its samples, and the report."""

    def prepared(rows, control_tokens='auto', max_length=64, overlong='truncate', **options):
        path = tmp_path / ('rows.txt' if isinstance(rows, str) else 'rows.jsonl')
        path.write_text(rows if isinstance(rows, str) else ''.join(json.dumps(row) + '\n' for row in rows))
        chat_tokenizer = ChatTokenizer(tokenizer, resolve('chatml', tokenizer), control_tokens)
        source = Source(str(path), **options)
        encoder = EncoderFactory(chat_tokenizer, max_length, overlong, 'all_replies').for_source(source)
        store, report = prepare(source, encoder, num_proc=1, max_bad_rows=0.0)
        return [tokenizer.decode(store.ids(i)) for i in range(len(store))], report

    return prepared


@pytest.fixture
def refusal(prepared):
    """Return a function that returns what is said of a source that is refused."""

    def refusal(*given, error=DataError, **options):
        with pytest.raises(error) as caught:
            prepared(*given, **options)
        return str(caught.value)

    return refusal


def texts(data, split):
    return [data.tokenizer.decode(split.store.ids(i)) for i in range(len(split.store))]


@pytest.mark.parametrize('streaming', [False, True])
def test_text_and_chats_in_one_run(build, streaming):
    options = {'data__streaming': True, 'data__window': 18, 'schedule__max_steps': 2} if streaming else {}
    job, data = build(CHAT, TEXT, (CHAT, {'chat_template': 'zephyr'}), val=TEXT[:2], **options)
    trained = texts(data, data.train)
    assert f'{TEXT[3]["text"]}<|im_end|>' in trained and any('<|assistant|>\n3!' in text for text in trained)
    assert any(text.endswith('<|im_start|>assistant\n3!<|im_end|>\n') for text in trained)
    assert texts(data, data.val) == [f'{row["text"]}<|im_end|>' for row in TEXT[:2]]
    assert data.template.name == 'chatml'
    assert [report.remarks[PLAIN_TEXT] for report in data.train.reports] == [0, 6, 0]
    printed = '\n'.join(text for _, text in data_lines(job.data_spec, data, new_token_warning(job.model, data)))
    assert f'6 rows {PLAIN_TEXT}' in printed and "chat_template='plain'" not in printed
    assert 'as openai with template `zephyr`: 6 rows' in printed


def test_a_template_that_no_row_uses_is_reported(build):
    job, data = build(TEXT)
    template = dict(data_lines(job.data_spec, data, new_token_warning(job.model, data)))['template']
    assert "chat_template='plain'" in template


def test_the_identity_of_a_stream_depends_on_the_templates(build):
    def digest(**given):
        return build((CHAT, given), data__streaming=True, data__window=6, schedule__max_steps=2)[1].steps.identity()

    assert digest() != digest(chat_template='zephyr')


def test_rows_of_text_among_chats_of_one_source(prepared):
    turns = [{'input': '', 'output': 'Only text.'}], [{'input': 'Hi', 'output': 'Ho'}]
    text, chat = prepared([{'conversation': one} for one in turns])[0]
    assert text == 'Only text.<|im_end|>' and chat.startswith('<|im_start|>')


def test_a_source_with_its_own_template(prepared, refusal):
    made, report = prepared(CHAT, chat_template='zephyr')
    assert '<|assistant|>\n0!' in made[0] and report.template == 'zephyr'
    again, report = prepared(CHAT)
    assert again[0].startswith('<|im_start|>') and report.template == ''
    message = refusal(CHAT, chat_template='zephir', error=TemplateError)
    assert 'rows.jsonl' in message and 'did you mean `zephyr`' in message
    assert 'it is `chatml`' in refusal(TEXT, chat_template='chatml')


@pytest.mark.parametrize(
    ('unit', 'expected'),
    [
        ('line', [(1, 'a'), (2, '  b'), (4, 'c'), (6, 'd')]),
        ('paragraph', [(1, 'a\n  b'), (4, 'c'), (6, 'd')]),
        ('file', [(1, 'a\n  b\n\nc\n \nd')]),
    ],
)
@pytest.mark.parametrize('name', ['x.txt', 'x.md', 'x.txt.gz'])
def test_units_of_text(tmp_path, name, unit, expected):
    raw = b'a\r\n  b\n\nc\n \nd\n\n'
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith('gz') else raw)
    assert [(n, row['text']) for n, row in read_file(tmp_path / name, text_unit=unit)] == expected
    assert len(list(read_file(tmp_path / name))) == (1 if name == 'x.md' else 4)


def test_text_unit_applies_to_text_files_only(prepared, refusal):
    assert prepared('a\nb\n\nc', text_unit='paragraph')[0] == ['a\nb<|im_end|>', 'c<|im_end|>']
    assert "text_unit='file' is for .txt and .md files" in refusal(TEXT, text_unit='file')


@pytest.mark.parametrize(
    ('text', 'hinted'),
    [
        ('\n\n'.join(BOOK), True),
        ('\n'.join(BOOK).replace('tower, ', 'tower,\n'), True),
        ('第一个港口结冰很晚，船在外面等引水员，引水员在等茶，茶还没有来，天又黑\n了，灯塔亮了。\n' * 20, True),
        ('\n'.join(line.replace('\n', ' ') for line in BOOK), False),
        ('\n'.join(f'how to boil {i} eggs in a small pot of water' for i in range(40)), False),
        ('\n'.join(f'A short line, {i}' for i in range(40)), False),
    ],
)
def test_hard_wrapped_lines_give_a_hint(prepared, text, hinted):
    assert bool(prepared(text, max_length=4096)[1].hints) == hinted
    assert not prepared(text, max_length=4096, text_unit='paragraph')[1].hints


def test_a_text_column_of_another_name(prepared):
    made, report = prepared([{'content': ' a ', 'url': 'x'}], map_fn='text', map_args={'column': 'content'})
    assert made == ['a<|im_end|>'] and list(report.unused.rows) == ['column `url`']


RENDERED = [
    {'text': f'<|im_start|>user\nSay {i}.<|im_end|>\n<|im_start|>assistant\n{i}!<|im_end|>\n'} for i in range(6)
]


@pytest.mark.parametrize(
    'rows',
    [
        RENDERED,
        RENDERED + TEXT,
        [{'text': f'{row["text"]}<|im_end|>'} for row in TEXT],
        [{'text': f'[INST] Say {i}. [/INST] {i}! [INST] And? [/INST] No.'} for i in range(4)],
        [{'text': f'<s>[INST] Say {i}. [/INST] {i}!</s>'} for i in range(4)],  # one turn, of Llama 2
        [{'text': f'<|system|>\nBe brief.</s>\n<|user|>\n{i}?</s>\n<|assistant|>\n{i}!</s>'} for i in range(4)],
        [{'text': f'<｜User｜>{i}?<｜Assistant｜>{i}!<｜end▁of▁sentence｜>'} for i in range(4)],
        [{'text': f'<bos><|turn>user\n{i}?<turn|>\n<|turn>model\n{i}!<turn|>'} for i in range(4)],
        [{'text': f'<|begin_of_text|><|header_start|>user<|header_end|>\n\n{i}?<|eot|>'} for i in range(4)],  # Llama 4
        [{'text': f'User: {i}?<end_of_utterance>\nAssistant: {i}!<end_of_utterance>'} for i in range(4)],
        [{'text': f'<repo_name>me/{i}<file_sep>print({i})'} for i in range(4)],
        [{'instruction': f'Say {i}.', 'output': f'{i}!<|im_end|>'} for i in range(4)],
    ],
)
def test_prerendered_rows_are_refused(prepared, refusal, rows):
    message = refusal(rows)
    assert "control_tokens='text'" in message and 'map function' in message
    assert len(prepared(rows, 'text')[0]) == len(rows)


@pytest.mark.parametrize(
    ('row', 'remarks'),
    [
        ({'text': 'What does <|im_end|> mean?'}, {PLAIN_TEXT: 13, ESCAPED: 1}),
        ({'text': '<|im_start|> and <|im_end|> begin and end a turn.'}, {PLAIN_TEXT: 13, ESCAPED: 1}),
        ({'text': 'Llama 2 writes [INST] before a question.'}, {PLAIN_TEXT: 13}),
        ({'text': '<|topic|> Rome <|body|> Rome lies on the Tiber.'}, {PLAIN_TEXT: 13}),
        ({'text': 'let y = x |> f <| 3'}, {PLAIN_TEXT: 13}),
        ({'text': 'Rome.'}, {PLAIN_TEXT: 13}),
    ],
)
def test_a_row_that_quotes_a_token_is_counted(prepared, row, remarks):
    _, report = prepared([*TEXT, *TEXT, row])
    assert dict(report.remarks) == remarks and (ESCAPED in remarks) == any('row 13' in line for line in report.lines())


def test_parsed_text_has_one_eos(prepared):
    made, report = prepared(RENDERED, 'parse')
    assert made[2] == RENDERED[2]['text'].strip() and report.tokens < 6 * 25


@pytest.mark.parametrize('overlong', ['truncate', 'split'])
def test_the_advice_for_too_long_prompts_names_a_sufficient_length(prepared, refusal, overlong):
    rows = [{'instruction': 'word ' * (80 + i), 'output': 'Yes.'} for i in range(3)]
    rows += [{'instruction': f'Say {i}.', 'output': f'{i}!'} for i in range(7)]
    message = refusal(rows, overlong=overlong)
    needed = int(re.search(r'max_length=(\d+) ', message.splitlines()[-1])[1])
    assert "overlong='drop'" in message and len(prepared(rows, max_length=needed, overlong='error')[0]) == 10
    with pytest.raises(DataError):
        prepared(rows, max_length=needed - 1, overlong='error')
    made, report = prepared(rows, overlong='drop')
    assert len(made) == 7 and max(report.too_long) == needed
    assert f'max_length={needed} ' in refusal(rows[:3], overlong='drop')


def test_the_advice_for_many_long_prompts_names_the_99th_percentile(refusal):
    rows = [{'instruction': 'word ' * (80 + (i == 0) * 300), 'output': 'Yes.'} for i in range(200)]
    few, most = map(int, re.search(r'max_length=(\d+) \(99 % of them; all: (\d+)\)', refusal(rows)).groups())
    assert 80 < few < 130 and most > 380
