"""Templates that take content as a list of parts, as those of vision-language models do."""

import json
from copy import copy

import pytest

from xtune.models.loading.processor_template import with_processor_template
from xtune.templates.rendering import JinjaTemplate
from xtune.templates.resolve import resolve

TALK = [
    dict(role='user', content='Hello there'),
    dict(role='assistant', content='Good morning'),
    dict(role='user', content='Bye'),
    dict(role='assistant', content='See you'),
]
TURN = "{{ '<|im_start|>' + message.role + '\n' }}%s{{ '<|im_end|>\n' }}"
NEXT = "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
LOOP = '{%% for message in messages %%}' + TURN + '{%% endfor %%}' + NEXT
TEXT = LOOP % '{{ message.content }}'
EACH_PART = "{% for part in message.content %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
SELECTED = "{% for part in message.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}"
BOTH = '{% if message.content is string %}{{ message.content }}{% else %}' + EACH_PART + '{% endif %}'
REFUSES_TEXT = "{% if message.content is string %}{{ raise_exception('give parts') }}{% endif %}" + EACH_PART


def own(tokenizer, source):
    changed = copy(tokenizer)
    changed.chat_template = source
    return resolve('auto', changed)


@pytest.mark.parametrize(('turn', 'parts'), [(EACH_PART, True), (SELECTED, True), (REFUSES_TEXT, True), (BOTH, False)])
def test_content_parts_render_like_text_content(tokenizer, turn, parts):
    template, expected = own(tokenizer, LOOP % turn), own(tokenizer, TEXT)
    assert JinjaTemplate(template.source, template.variables).needs_content_parts is parts
    assert template.render(TALK) == expected.render(TALK)
    assert template.prompt(TALK[:1]) == expected.prompt(TALK[:1])


def test_processor_template_is_used_for_the_tokenizer(tokenizer, tmp_path):
    (tmp_path / 'chat_template.json').write_text(json.dumps(dict(chat_template=LOOP % EACH_PART)))
    bare = copy(tokenizer)
    bare.chat_template = None
    assert with_processor_template(bare, str(tmp_path)).chat_template == LOOP % EACH_PART
    assert with_processor_template(tokenizer, str(tmp_path)).chat_template != LOOP % EACH_PART
    bare.chat_template = None
    assert with_processor_template(bare, str(tmp_path / 'nothing')).chat_template is None
