"""Advice names only templates whose special tokens the tokenizer has as single tokens."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import TemplateError
from xtune.messages import exchange
from xtune.templates import FOLDER, NAMES, THINKING
from xtune.templates.resolve import resolve
from xtune.templates.template import ChatTemplate
from xtune.templates.template_tokens import (
    REQUIRED_TOKENS,
    SUPPORT_REASONING,
    SUPPORT_SEVERAL_CALLS,
    SUPPORT_TOOLS,
    compatible,
)

TOOL = {'type': 'function', 'function': {'name': 'look', 'description': 'Look.', 'parameters': {}}}
CALL = {'type': 'function', 'function': {'name': 'look', 'arguments': {}}}
REASONING = [exchange('Hi', 'Ho')[0], {'role': 'assistant', 'content': 'Ho', 'reasoning_content': 'Hm.'}]
CALLS = [exchange('Hi', 'Ho')[0], {'role': 'assistant', 'content': '', 'tool_calls': [CALL, CALL]}]
CHATML = ('<|im_start|>', '<|im_end|>')
LLAMA = ('<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>')
GPT_OSS = REQUIRED_TOKENS['gpt_oss']


def template(name, tokens):
    """Return a built-in template bound to a tokenizer with these tokens."""
    source = (FOLDER / f'{name}.jinja').read_text('utf-8')
    return ChatTemplate(name, source, {'eos_token': '</s>'}, tokens, is_builtin=True)


def advised(made, messages, tools=None):
    with pytest.raises(TemplateError) as caught:
        made.render(messages, tools)
    return str(caught.value).split('; ')[-1]


@pytest.mark.parametrize(
    'tokens, advice',
    [
        (CHATML, 'use chatml, qwen_chat, qwen3, internlm2_chat'),
        (LLAMA, 'use llama3_chat'),
        (GPT_OSS, 'use gpt_oss'),
        ((*LLAMA, '<|im_end|>'), 'use llama3_chat'),
        ((), 'no built-in template'),
    ],
)
@pytest.mark.parametrize('name', ['vicuna', 'default', 'deepseek_v3'])
def test_for_tools(name, tokens, advice):
    text = advised(template(name, tokens), exchange('Hi', 'Ho'), [TOOL])
    assert text == advice if tokens else text.startswith(advice)


def test_for_tools_of_a_custom_template():
    made = ChatTemplate('auto', '{{ messages[0].content }}', {}, LLAMA)
    assert advised(made, exchange('Hi', 'Ho'), [TOOL]) == 'use llama3_chat'


def test_for_several_calls():
    assert advised(template('llama3_chat', (*LLAMA, *CHATML)), CALLS).startswith('use chatml, qwen_chat')
    assert '.jinja' in advised(template('llama3_chat', LLAMA), CALLS)
    beside = [CALLS[0], {**CALLS[1], 'content': 'I look.', 'tool_calls': [CALL]}]
    assert advised(template('llama3_chat', (*LLAMA, *CHATML)), beside) == (
        'use chatml, qwen_chat, qwen3, internlm2_chat'
    )


@pytest.mark.parametrize(
    'tokens, advice',
    [
        (CHATML, 'use qwen3_thinking, or'),
        (GPT_OSS, 'use gpt_oss_thinking, or'),
        ((*CHATML, '<think>', '</think>'), 'use qwen3_thinking, qwen3_5_thinking, nemotron3_thinking, or'),
        (('<｜User｜>', '<｜Assistant｜>'), 'use deepseek_r1, or'),
        (LLAMA, 'no built-in template'),
    ],
)
def test_for_reasoning(tokens, advice):
    assert advised(template('vicuna', tokens), REASONING).startswith(advice)


@pytest.mark.parametrize('tokens, named', [(CHATML, "chat_template='chatml'"), (LLAMA, 'No built-in template')])
def test_most_similar_template_fits_the_tokenizer(tokens, named):
    own = (FOLDER / 'chatml.jinja').read_text('utf-8').replace('{%- generation -%}', '').replace('<|im_end|>', '<|end>')
    made = ChatTemplate('auto', own.replace('{%- endgeneration -%}', ''), {}, tokens)
    with pytest.raises(TemplateError, match=named):
        made.render(exchange('Hi', 'Ho'))


def test_stop_token_that_is_several_tokens(tokenizer):
    with pytest.raises(TemplateError, match='chat_template=.auto., .*: chatml, inter'):
        stop_token_ids(ChatTokenizer(tokenizer, resolve('llama3_chat', tokenizer)))


def test_tokens_in_the_vocabulary_count():
    """Sentencepiece models have such tokens among their pieces; a text of several tokens does not count."""
    backend = Tokenizer(WordLevel({'<step>': 0, '</s>': 1, '?': 2}, unk_token='?'))
    backend.pre_tokenizer = WhitespaceSplit()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='</s>', unk_token='?')
    ends = resolve('vicuna', own).end_tokens
    assert '<step>' in ends and '<eoa>' not in ends
    assert compatible(ends, REQUIRED_TOKENS) == ['code_llama_70b_chat']


def test_tables_match_the_template_files():
    sources = {name: (FOLDER / f'{name}.jinja').read_text('utf-8') for name in NAMES}
    assert all(token in sources[name] for name, tokens in REQUIRED_TOKENS.items() for token in tokens)
    assert {*SUPPORT_TOOLS} == {n for n, s in sources.items() if 'call.function.name' in s or 'call.name' in s}
    assert {*SUPPORT_SEVERAL_CALLS} == {name for name in SUPPORT_TOOLS if 'not support several' not in sources[name]}
    assert {*THINKING} <= {*SUPPORT_REASONING} and {*SUPPORT_REASONING.values()} == {
        n for n, s in sources.items() if 'reasoning_con' in s
    }
    assert compatible((), REQUIRED_TOKENS) == [] and 'default' in compatible(())
