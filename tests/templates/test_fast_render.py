"""The fast renderer of built-in templates gives the same text and spans as transformers."""

import itertools

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from xtune.errors import TemplateError
from xtune.messages import exchange
from xtune.templates import FOLDER, NAMES, fast_render
from xtune.templates.template import ChatTemplate

VARIABLES = {'bos_token': '<s>', 'eos_token': '</s>'}
TEXTS = ['Hi', ' 4 ', '你好 😀', 'a\n\nb\n', '{{ x }} {% y %}', '<b>&amp;']
TALK = [m for one, two in itertools.pairwise(TEXTS) for m in exchange(one, two)]
SYSTEM = [{'role': 'system', 'content': ' Be brief. '}]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('messages', [TALK, SYSTEM + TALK, TALK[:1], TALK[:3]], ids=['talk', 'system', 'ask', 'again'])
@pytest.mark.parametrize('prompt', [False, True])
def test_text_and_spans_are_those_of_transformers(name, messages, prompt):
    source = (FOLDER / f'{name}.jinja').read_text(encoding='utf-8')
    assert fast_render.supports(messages, None)
    call = dict(conversations=[messages], chat_template=source, add_generation_prompt=prompt, **VARIABLES)
    [text], [spans] = render_jinja_template(**call, return_assistant_tokens_mask=True)
    assert fast_render.split_markers(fast_render.render(source, messages, prompt, VARIABLES)) == (text, spans)


@pytest.mark.parametrize(
    'messages, tools',
    [
        (exchange('Hi', f'a{fast_render.OPEN}b'), None),
        (exchange(f'a{fast_render.CLOSE}b', 'Hi'), None),
        ([{**TALK[0], 'name': 'x'}], None),
        (TALK, [{'type': 'function'}]),
    ],
)
def test_unsupported_conversations_are_rendered_by_transformers(messages, tools):
    assert not fast_render.supports(messages, tools)


def test_content_with_marker_characters_is_unchanged():
    reply = f'a{fast_render.OPEN}b{fast_render.CLOSE}'
    source = (FOLDER / 'chatml.jinja').read_text(encoding='utf-8')
    text, [(start, end)] = ChatTemplate('chatml', source, VARIABLES, (), is_builtin=True).render(exchange('Hi', reply))
    assert text[start:end] == f'{reply}<|im_end|>'


def test_refusal_names_the_template():
    source = (FOLDER / 'baichuan_chat.jinja').read_text(encoding='utf-8')
    messages = [*TALK[:2], {'role': 'tool', 'content': 'x'}, TALK[1]]
    with pytest.raises(TemplateError, match='`baichuan_chat`.* tools'):
        ChatTemplate('baichuan_chat', source, VARIABLES, (), is_builtin=True).render(messages)
