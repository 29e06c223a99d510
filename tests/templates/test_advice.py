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
from xtune.templates.template_tokens import SEVERAL_CALLS, THOUGHTS, TOKENS, TOOLS, fitting

TOOL = {'type': 'function', 'function': {'name': 'look', 'description': 'Look.', 'parameters': {}}}
CALL = {'type': 'function', 'function': {'name': 'look', 'arguments': {}}}
THOUGHT = [exchange('Hi', 'Ho')[0], {'role': 'assistant', 'content': 'Ho', 'reasoning_content': 'Hm.'}]
CALLS = [exchange('Hi', 'Ho')[0], {'role': 'assistant', 'content': '', 'tool_calls': [CALL, CALL]}]
CHATML = ('<|im_start|>', '<|im_end|>')
LLAMA = ('<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>')
GPT_OSS = TOKENS['gpt_oss']


def template(name, tokens):
    """Return a named template as a tokenizer with these tokens has it."""
    return ChatTemplate(name, (FOLDER / f'{name}.jinja').read_text('utf-8'), {'eos_token': '</s>'}, tokens, own=True)


def advised(made, messages, tools=None):
    with pytest.raises(TemplateError) as caught:
        made.render(messages, tools)
    return str(caught.value).split('; ')[-1]


@pytest.mark.parametrize(
    'tokens, advice',
    [
        (CHATML, 'take chatml, qwen_chat, qwen3, internlm2_chat'),
        (LLAMA, 'take llama3_chat'),
        (GPT_OSS, 'take gpt_oss'),
        ((*LLAMA, '<|im_end|>'), 'take llama3_chat'),
        ((), 'no named template with a form for tools has its tokens in this tokenizer: write a .jinja file'),
    ],
)
@pytest.mark.parametrize('name', ['vicuna', 'default', 'deepseek_v3'])
def test_for_tools(name, tokens, advice):
    said = advised(template(name, tokens), exchange('Hi', 'Ho'), [TOOL])
    assert said == advice if tokens else said.startswith(advice)


def test_for_tools_of_a_template_that_is_not_ours():
    made = ChatTemplate('auto', '{{ messages[0].content }}', {}, LLAMA)
    assert advised(made, exchange('Hi', 'Ho'), [TOOL]) == 'take llama3_chat'


def test_for_several_calls():
    assert advised(template('llama3_chat', (*LLAMA, *CHATML)), CALLS).startswith('take chatml, qwen_chat')
    assert 'a form for several calls' in advised(template('llama3_chat', LLAMA), CALLS)
    beside = [CALLS[0], {**CALLS[1], 'content': 'I look.', 'tool_calls': [CALL]}]
    assert advised(template('llama3_chat', (*LLAMA, *CHATML)), beside) == (
        'take chatml, qwen_chat, qwen3, internlm2_chat'
    )


@pytest.mark.parametrize(
    'tokens, advice',
    [
        (CHATML, 'take qwen3_thinking, or write thoughts'),
        (GPT_OSS, 'take gpt_oss_thinking, or write'),
        ((*CHATML, '<think>', '</think>'), 'take qwen3_thinking, qwen3_5_thinking, nemotron3_thinking, or'),
        (('<｜User｜>', '<｜Assistant｜>'), 'take deepseek_r1, or'),
        (LLAMA, 'no named template with a place for thoughts has its tokens in this tokenizer'),
    ],
)
def test_for_thoughts(tokens, advice):
    assert advised(template('vicuna', tokens), THOUGHT).startswith(advice)


@pytest.mark.parametrize('tokens, named', [(CHATML, "template='chatml'"), (LLAMA, 'No named template is close')])
def test_the_closest_template_fits_the_tokenizer(tokens, named):
    own = (FOLDER / 'chatml.jinja').read_text('utf-8').replace('{%- generation -%}', '').replace('<|im_end|>', '<|end>')
    made = ChatTemplate('auto', own.replace('{%- endgeneration -%}', ''), {}, tokens)
    with pytest.raises(TemplateError, match=f'no token ends a reply.*{named}'):
        made.render(exchange('Hi', 'Ho'))


def test_where_the_end_of_turn_is_no_token(tokenizer):
    with pytest.raises(
        TemplateError, match='Use chat_template=.auto., .* or one that fits this tokenizer: chatml, inter'
    ):
        stop_token_ids(ChatTokenizer(tokenizer, resolve('llama3_chat', tokenizer)))


def test_a_token_of_the_vocabulary_itself_counts():
    """Sentencepiece models have such tokens among their pieces; a text of several tokens does not count."""
    backend = Tokenizer(WordLevel({'<step>': 0, '</s>': 1, '?': 2}, unk_token='?'))
    backend.pre_tokenizer = WhitespaceSplit()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='</s>', unk_token='?')
    ends = resolve('vicuna', own).end_tokens
    assert '<step>' in ends and '<eoa>' not in ends
    assert fitting(ends, TOKENS) == ['code_llama_70b_chat']


def test_the_tables_are_those_of_the_files():
    sources = {name: (FOLDER / f'{name}.jinja').read_text('utf-8') for name in NAMES}
    assert all(token in sources[name] for name, tokens in TOKENS.items() for token in tokens)
    assert {*TOOLS} == {n for n, s in sources.items() if 'call.function.name' in s or 'call.name' in s}
    assert {*SEVERAL_CALLS} == {name for name in TOOLS if 'no form for several' not in sources[name]}
    assert {*THINKING} <= {*THOUGHTS} and {*THOUGHTS.values()} == {
        n for n, s in sources.items() if 'reasoning_con' in s
    }
    assert fitting((), TOKENS) == [] and 'default' in fitting(())
