"""`{% generation %}` blocks must begin where the inference prompt ends; the error shows the difference."""

from pathlib import Path

import pytest

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import TemplateError
from xtune.messages import Conversation, exchange
from xtune.templates import NAMES, THINKING
from xtune.templates.resolve import resolve

CASES = Path(__file__).parent / 'files' / 'generation_blocks'
HEAD = '<|im_start|>assistant\n'
# A ChatML template in parts: before the block, the block, after it, a system message, the prompt.
FORM = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{- BEFORE -}}"
    '{%- generation -%}{{- REPLY -}}{%- endgeneration -%}{{- BEHIND -}}'
    "{%- elif m.role == 'system' -%}{{- SYSTEM -}}"
    "{%- else -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    '{%- if add_generation_prompt -%}{{- PROMPT -}}{%- endif -%}'
)
PARTS = {
    'BEFORE': "'<|im_start|>assistant\n'",
    'REPLY': "m.content + '<|im_end|>'",
    'BEHIND': "'\n'",
    'SYSTEM': "m.content + '<|im_end|>\n'",
    'PROMPT': "'<|im_start|>assistant\n'",
}
CALLS = "(m.content or '') + (m.tool_calls | string if m.tool_calls else '') + '<|im_end|>'"
# What is changed -> the change.
WRONG = {
    'the header is marked, and a blank in front': {
        'BEFORE': "''",
        'REPLY': "'\n<|im_start|>assistant\n' + m.content + '<|im_end|>'",
    },
    'half of the header is marked': {'BEFORE': "'<|im_start|>'", 'REPLY': "'assistant\n' + m.content + '<|im_end|>'"},
    'no prompt': {'PROMPT': "''"},
    'empty reasoning in training only': {'BEFORE': "'<|im_start|>assistant\n<think></think>'"},
    'the stop token is not marked': {'REPLY': 'm.content', 'BEHIND': "'<|im_end|>\n'"},
    'a system message is only in finished conversations': {'SYSTEM': "m.content if not add_generation_prompt else ''"},
}
CALL = {'type': 'function', 'function': {'name': 'add_up', 'arguments': {'a': 2}}}
# What is wrong only where a conversation has it -> the change, an assistant message that has it.
WRONG_WITH = {
    'a tool call is marked after its header': (
        {'BEFORE': "'<|im_start|>assistant\n' + ('call:' if m.tool_calls else '')", 'REPLY': CALLS},
        {'content': '', 'tool_calls': [CALL]},
    ),
    'reasoning is not trained': (
        {'BEFORE': "'<|im_start|>assistant\n' + ('<think>' + m.thinking + '</think>' if m.thinking else '')"},
        {'content': '4.', 'thinking': 'A sum.'},
    ),
}


@pytest.fixture
def made(tokenizer, tmp_path):
    """Return a function that writes a template with some parts changed and resolves it."""

    def _made(changes, source=FORM):
        path = tmp_path / 'mine.jinja'
        for name, part in (PARTS | changes).items():
            source = source.replace(name, part)
        path.write_text(source + '{# tools #}', 'utf-8')
        return ChatTokenizer(tokenizer, resolve(str(path), tokenizer))

    return _made


@pytest.mark.parametrize(
    'case, shown',
    [
        (
            'header_inside',
            [r"has '<|im_start|>assistant\n' inside {% generation %}", "Write '<|im_start|>assistant\\n'"],
        ),
        (
            'prompt_differs',
            [r'inference prompt  ...m_end|>\n<|im_start|>assistant\n<think>\n', "Write '<think>\\n'"],
        ),
    ],
)
def test_errors_show_the_difference(case, shown, tokenizer):
    with pytest.raises(TemplateError) as caught:
        resolve(str(CASES / f'{case}.jinja'), tokenizer)
    assert all(part in str(caught.value) for part in (*shown, "chat_template='chatml'"))
    # It can still be used to chat with.
    assert resolve(str(CASES / f'{case}.jinja'), tokenizer, for_training=False).prompt(exchange('Hi', 'Ho')[:1])


def test_wrong_blocks_are_refused(made, golden):
    messages = {}
    for case, changes in WRONG.items():
        with pytest.raises(TemplateError, match='mine.jinja') as caught:
            made(changes)
        messages[case] = caught.value
    golden('template.generation_blocks', messages)


def test_blocks_wrong_with_calls_or_reasoning_refuse_only_such_conversations(made, golden):
    messages = {}
    for case, (changes, reply) in WRONG_WITH.items():
        template = made(changes).template
        assert template.render(exchange('Hi', 'Ho'))[1]
        for _ in range(2):
            with pytest.raises(TemplateError, match='mine.jinja') as caught:
                template.render([{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', **reply}])
        messages[case] = caught.value
    golden('template.generation_blocks_of_some', messages)


def test_correct_blocks_are_accepted(made):
    chat_tokenizer = made({'REPLY': CALLS})
    text, [(start, end)] = chat_tokenizer.template.render(exchange('Hi', 'Ho', 'Be brief.'))
    assert text[start:end] == 'Ho<|im_end|>' and text[:start].endswith(HEAD)


@pytest.mark.parametrize('blanks', ['\n', ' ', '\n\n\t'])
def test_whitespace_after_the_stop_token_is_not_trained(blanks, made):
    """As LFM2.5 has it: the model stops at the token, so what follows is of no use."""
    chat_tokenizer = made({'REPLY': f"m.content + '<|im_end|>{blanks}'", 'BEHIND': "''"})
    rendered = chat_tokenizer.render(Conversation(exchange('Hi', ' Ho\n') + exchange('And?', 'Hm')))
    assert [rendered.text[s:e] for s, e in rendered.spans] == [' Ho\n<|im_end|>', 'Hm<|im_end|>']
    end = chat_tokenizer.tokenizer.convert_tokens_to_ids('<|im_end|>')
    [(ids, turns)] = chat_tokenizer.tokenize([rendered])
    assert [ids[stop - 1] for _, stop in turns] == [end, end] and stop_token_ids(chat_tokenizer) == [end]


def test_whitespace_without_a_stop_token_is_kept(made):
    """They are the reply's own, or all that ends it; the check of stop tokens says so."""
    chat_tokenizer = made({'REPLY': "m.content + '\n'"})
    text, [(start, end)] = chat_tokenizer.template.render(exchange('Hi', 'Ho'))
    assert text[start:end] == 'Ho\n'
    with pytest.raises(TemplateError, match=r"'\\n'"):
        stop_token_ids(chat_tokenizer)


@pytest.mark.parametrize('changes', [{'SYSTEM': "raise_exception('no system')"}, {'SYSTEM': "''"}])
def test_unsupported_features_are_refused_per_row(changes, made):
    chat_tokenizer = made(changes)
    with pytest.raises(TemplateError, match='no system|drops system messages'):
        chat_tokenizer.template.render(exchange('Hi', 'Ho', 'Be brief.'))


@pytest.mark.parametrize('name', sorted({*NAMES, *THINKING}))
def test_built_in_templates_pass(name, tokenizer):
    resolve(name, tokenizer).check_generation_blocks()
