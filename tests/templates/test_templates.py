"""Templates: the official text of each format, and which characters of it are trained."""

import copy
import inspect

import pytest
from tokenizers.processors import TemplateProcessing
from transformers.utils.chat_template_utils import render_jinja_template

from xtune.errors import TemplateError
from xtune.messages import exchange
from xtune.templates import NAMES
from xtune.templates.resolve import resolve

SYSTEM = 'You are a careful assistant.'
TURNS = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '6.')
UNMARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + REPLY + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def own(tokenizer):
    """A tokenizer to change."""
    return copy.deepcopy(tokenizer)


def marked(text, spans):
    """Put « and » around the spans."""
    for start, end in reversed(spans):
        text = f'{text[:start]}«{text[start:end]}»{text[end:]}'
    return text


@pytest.mark.parametrize('name', NAMES)
def test_text_before_each_message_equals_the_prompt(tokenizer, name):
    template = resolve(name, tokenizer)
    text, spans = template.render(TURNS)
    assert [text[:start] for start, _ in spans] == [template.prompt(TURNS[:1]), template.prompt(TURNS[:3])]


def test_auto_finds_the_spans_of_the_chatml_blocks(tokenizer):
    messages = [{'role': 'system', 'content': SYSTEM}, *TURNS, *exchange('4.', '  4.<b>你好 😀</b>\n')]
    auto, chatml = resolve('auto', tokenizer), resolve('chatml', tokenizer)
    assert not auto.has_generation_blocks and chatml.has_generation_blocks
    assert auto.render(messages) == chatml.render(messages)
    assert auto.prompt(messages[:-1]) == chatml.prompt(messages[:-1])


def test_auto_keeps_the_default_system_message_of_the_model(tokenizer):
    text, spans = resolve('auto', tokenizer).render(TURNS)
    assert text.startswith('<|im_start|>system\nYou are a helpful AI assistant named SmolLM')
    assert [text[start:end] for start, end in spans] == ['4.<|im_end|>', '6.<|im_end|>']


def test_auto_accepts_a_template_that_strips_content(own):
    own.chat_template = UNMARKED.replace('REPLY', 'm.content | trim')
    text, [(start, end)] = resolve('auto', own).render(exchange('Hi', '  Hello \n'))
    assert text[start:end] == 'Hello<|im_end|>'


UNPROVEN = [
    UNMARKED.replace('REPLY', '(m.content | upper)'),
    UNMARKED.replace('REPLY', "m.content.split('</think>')[-1]"),
    UNMARKED.replace('REPLY', 'm.content').replace('<|im_end|>', '\n'),
    UNMARKED.replace('REPLY', 'm.content').replace('assistant\n', 'bot\n'),
    '{{ messages[0].content }}',
]


def test_template_without_determinable_spans_is_refused(own, golden):
    messages = {}
    for source in UNPROVEN:
        own.chat_template = source
        with pytest.raises(TemplateError, match='`auto`') as caught:
            resolve('auto', own).render(exchange('Hi', '<think>Hm</think>Hello'))
        messages[repr(source)] = caught.value
    golden('template.without_generation_blocks', messages)


@pytest.mark.parametrize(
    'source, reason',
    [
        ("{{ raise_exception('No system message, please') }}", ': No system message, please'),
        (
            '{% generation %}{{ messages[-1].content }}{% endgeneration %}',
            ' 1 {% generation %} blocks for 2 ',
        ),
    ],
)
def test_template_that_raises_or_misses_a_block_is_refused(own, source, reason):
    own.chat_template = source
    with pytest.raises(TemplateError, match=reason):
        resolve('auto', own).render(TURNS)


def test_unknown_name_suggests_a_similar_one(tokenizer):
    with pytest.raises(TemplateError, match=r'`chatlm`.*`chatml`.*: auto, baichuan'):
        resolve('chatlm', tokenizer)


def test_auto_needs_a_template_of_the_tokenizer(own):
    own.chat_template = None
    with pytest.raises(TemplateError, match="chat_template='auto' .* chatml, .*, default, .*\\.jinja"):
        resolve('auto', own)


def test_auto_takes_the_default_of_several(own):
    named = own.chat_template
    own.chat_template = {'tool_use': 'x', 'default': named}
    assert resolve('auto', own).source == named


def test_path_of_a_jinja_file(tokenizer, tmp_path):
    path = tmp_path / 'mine.jinja'
    path.write_text(
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
        '{% generation %}{{ m.content }}»{% endgeneration %}{% endif %}{% endfor %}',
        'utf-8',
    )
    assert marked(*resolve(str(path), tokenizer).render(TURNS[:2])) == 'What is 2+2?«4.»»'


@pytest.mark.parametrize(
    ('name', 'data', 'said'),
    [
        ('other.jinja', None, 'other.jinja'),
        ('mine.txt', b'{{ messages }}', 'mine.txt .*\\.jinja'),
        ('mine.jinja', b'\xff\xfe{\x00', 'mine.jinja .*UTF-8'),
        ('mine', None, 'mine'),
    ],
)
def test_invalid_template_files_are_refused(tokenizer, tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(TemplateError, match=said):
        resolve(str(tmp_path / name), tokenizer)


def test_plain_has_bos_only_if_the_tokenizer_adds_it(own):
    assert marked(*resolve('plain', own).render(exchange('Hi', 'Hello'))) == 'Hi\n«Hello<|im_end|>»'
    bos = ('<|im_start|>', own.bos_token_id)
    own.backend_tokenizer.post_processor = TemplateProcessing(single=f'{bos[0]} $A', special_tokens=[bos])
    assert own('a')['input_ids'][0] == own.bos_token_id
    assert marked(*resolve('plain', own).render(exchange('Hi', 'Hello'))) == '<|im_start|>Hi\n«Hello<|im_end|>»'
    assert marked(*resolve('plain', own).render([{'role': 'text', 'content': 'A'}])) == '<|im_start|>«A<|im_end|>»'


def test_missing_eos_is_an_error_and_missing_bos_is_empty(own):
    own.bos_token = own.eos_token = None
    assert resolve('llama3_chat', own).prompt(TURNS[:1]).startswith('<|start_header_id|>')
    with pytest.raises(TemplateError, match='`plain`.* eos'):
        resolve('plain', own)


def test_transformers_returns_block_spans_in_characters():
    """If this fails, transformers changed `render_jinja_template`: fix JinjaTemplate in templates/rendering.py."""
    names = inspect.signature(render_jinja_template).parameters
    assert {'conversations', 'chat_template', 'add_generation_prompt', 'return_assistant_tokens_mask'} <= set(names)
    source = '{{ bos_token }}{% generation %}{{ messages[0].content }}{% endgeneration %}!'
    call = dict(conversations=[TURNS[:1]], chat_template=source, bos_token='😀')
    marks = render_jinja_template(**call, return_assistant_tokens_mask=True)
    assert tuple(marks) == (['😀What is 2+2?!'], [[(1, 13)]])
    assert render_jinja_template(**call)[0] == ['😀What is 2+2?!']
