"""chat_template='auto' on published templates: the trained spans are found, or the error names a better template."""

import copy
import json
import re
import time
from pathlib import Path

import pytest
from transformers import AddedToken

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import TemplateError
from xtune.messages import Conversation, RowError, exchange
from xtune.templates.resolve import resolve

HUB = Path(__file__).parent / 'files' / 'hub'
LLAMA = ('<s>', '</s>')
COHERE = ('<BOS_TOKEN>', '<|END_OF_TURN_TOKEN|>')
DEEPSEEK = ('<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>')
# Published template -> bos and eos of its model, the named template of the family, and what the text has other than it.
ACCEPTED = {
    'CohereForAI-c4ai-command-r-plus': (*COHERE, 'cohere_chat', None),
    'HuggingFaceH4-zephyr-7b-beta': (*LLAMA, 'zephyr', 'no bos'),
    'Qwen-Qwen1.5-72B-Chat': (None, '<|im_end|>', 'qwen_chat', None),
    'chatml': (None, '<|im_end|>', 'chatml', None),
    'deepseek-ai-DeepSeek-V2': (*DEEPSEEK, 'deepseek_v2', None),
    'deepseek-ai-deepseek-coder-33b-instruct': (DEEPSEEK[0], '<|EOT|>', 'deepseek_coder', None),
    'deepseek-ai-deepseek-llm-7b-chat': (*DEEPSEEK, 'deepseek_v2', None),
    'google-gemma-2-2b-it': ('<bos>', '<eos>', 'gemma', None),
    'google-gemma-7b-it': ('<bos>', '<eos>', 'gemma', 'no bos'),
    'internlm-internlm2-chat-7b': (*LLAMA, 'internlm2_chat', 'eos at the end'),
    'llama2-default-LlamaTokenizer': (*LLAMA, 'llama2_chat', None),
    'meta-llama-Meta-Llama-3-8B-Instruct': ('<|begin_of_text|>', '<|end_of_text|>', 'llama3_chat', None),
    'microsoft-Phi-3-mini-4k-instruct-2024-04': ('<s>', '<|endoftext|>', 'phi3_chat', 'bos'),
    'microsoft-Phi-3.5-mini-instruct': ('<s>', '<|endoftext|>', 'phi3_chat', 'eos at the end'),
    'mistralai-Mistral-7B-Instruct-v0.1': (*LLAMA, 'mistral', 'space after eos'),
    'mistralai-Mistral-7B-Instruct-v0.2-old': (*LLAMA, 'mistral', None),
    'mistralai-Mixtral-8x7B-Instruct-v0.1': (*LLAMA, 'mistral', None),
    'mistralai-v1-with-system': (*LLAMA, None, None),
    'vicuna-llamacpp': (*LLAMA, None, None),
}
REFUSED = {
    'THUDM-chatglm3-6b': (None, '</s>', 'chatglm3'),
    'codellama-CodeLlama-70b-Instruct-hf': (*LLAMA, 'code_llama_70b_chat'),
    'openbmb-MiniCPM': (*LLAMA, 'minicpm'),
}
# Template -> what becomes of a row with a system message; the others write it.
SYSTEM = {
    'google-gemma-2-2b-it': 'System role not supported',
    'google-gemma-7b-it': 'System role not supported',
    'microsoft-Phi-3-mini-4k-instruct-2024-04': "drops system messages. .*chat_template='phi3_chat'",
    'mistralai-Mistral-7B-Instruct-v0.1': 'roles must alternate',
    'mistralai-Mistral-7B-Instruct-v0.2-old': 'roles must alternate',
    'mistralai-Mixtral-8x7B-Instruct-v0.1': 'roles must alternate',
}
# Template -> what becomes of a tool's result; the others refuse the role.
RESULT = {
    'HuggingFaceH4-zephyr-7b-beta': "drops tool messages. .*chat_template='zephyr'",
    'deepseek-ai-DeepSeek-V2': "drops tool messages. .*chat_template='deepseek_v2'",
    'deepseek-ai-deepseek-llm-7b-chat': "drops tool messages. .*chat_template='deepseek_v2'",
    'microsoft-Phi-3-mini-4k-instruct-2024-04': "drops tool messages. .*chat_template='phi3_chat'",
    'microsoft-Phi-3.5-mini-instruct': "drops tool messages. .*chat_template='phi3_chat'",
    'Qwen-Qwen1.5-72B-Chat': '<|im_start|>tool\n42<|im_end|>\n',
    'chatml': '<|im_start|>tool\n42<|im_end|>\n',
    'internlm-internlm2-chat-7b': '<|im_start|>tool\n42<|im_end|>\n',
    'meta-llama-Meta-Llama-3-8B-Instruct': '<|start_header_id|>tool<|end_header_id|>\n\n42<|eot_id|>',
    'deepseek-ai-deepseek-coder-33b-instruct': '### Response:\n42\n<|EOT|>',
    'vicuna-llamacpp': 'ASSISTANT: 42</s>\n',
}
TURNS = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '  6.\n\n 你好 😀') + exchange('4.', '4.')
CALL = {'type': 'function', 'function': {'name': 'look', 'arguments': {'a': 1}}}
CALLING = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}{%- for call in m.tool_calls or [] %}"
    '{{- \'<tool_call>{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson + '}</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}{# tools #}"
)


@pytest.fixture(scope='module')
def family(tokenizer):
    """Return a function that gives SmolLM2's tokenizer with a published template and all its tokens."""

    def _family(file, bos, eos, *_):
        own, source = copy.deepcopy(tokenizer), (HUB / f'{file}.jinja').read_text('utf-8')
        tags = {*re.findall(r'<\|?\w+\|?>', source), '<|observation|>', '<|user|>', bos, eos} - {None, '<SYS>'}
        own.add_tokens([AddedToken(t, special=True, normalized=False) for t in sorted(tags)], special_tokens=True)
        own.bos_token, own.eos_token, own.chat_template = bos, eos, source
        return own

    return _family


@pytest.fixture(scope='module', params=ACCEPTED)
def accepted(request, family):
    """The name of a published template, its tokenizer, the template, and the one of that family."""
    own = family(request.param, *ACCEPTED[request.param])
    return request.param, own, resolve('auto', own), ACCEPTED[request.param][2:]


def trained(text, spans):
    return [text[start:end] for start, end in spans]


def test_each_published_template_has_a_row():
    assert {*ACCEPTED, *REFUSED} == {path.stem for path in HUB.glob('*.jinja')} and not {*ACCEPTED} & {*REFUSED}


def test_trained_text_equals_that_of_the_built_in_template(accepted):
    _, own, template, (name, other) = accepted
    text, spans = template.render(TURNS)
    assert not template.has_generation_blocks
    if name is None:
        assert trained(text, spans) == [f' {m["content"]}</s>' for m in TURNS[1::2]]
        return
    named, named_spans = resolve(name, own).render(TURNS)
    assert trained(text, spans) == trained(named, named_spans)
    if other == 'no bos':
        text = own.bos_token + text
    elif other == 'bos':
        text = text.removeprefix(own.bos_token)
    elif other == 'eos at the end':
        text = text.removesuffix(own.eos_token)
    elif other == 'space after eos':
        text = text.replace(own.eos_token + ' ', own.eos_token)
    assert text == named and (other is None) == (template.render(TURNS) == (named, named_spans))


def test_text_before_each_assistant_message_is_the_prompt(accepted):
    _, own, template, _ = accepted
    text, spans = template.render(TURNS)
    assert [text[:start] for start, _ in spans] == [template.prompt(TURNS[:i]) for i in (1, 3, 5)]
    chat_tokenizer = ChatTokenizer(own, template)
    [(ids, turns)] = chat_tokenizer.tokenize([chat_tokenizer.render(Conversation(TURNS))])
    assert [ids[:start] for start, _ in turns] == [chat_tokenizer.prompt_ids(TURNS[:i]) for i in (1, 3, 5)]
    assert {ids[end - 1] for _, end in turns} == {stop_token_ids(chat_tokenizer)[0]}


def test_a_system_message_is_written_or_the_row_refused(accepted):
    file, own, template, _ = accepted
    chat_tokenizer, given = ChatTokenizer(own, template), Conversation(exchange('Hi', 'Ho', 'Be brief.'))
    if file in SYSTEM:
        with pytest.raises(RowError, match=SYSTEM[file]):
            chat_tokenizer.render(given)
    else:
        assert chat_tokenizer.render(given).text.count('Be brief.') == 1


def test_a_tool_result_is_written_or_the_row_refused(accepted):
    file, own, template, _ = accepted
    given = [*exchange('Hi', 'look()'), {'role': 'tool', 'content': '42'}, {'role': 'assistant', 'content': 'Ho'}]
    written = RESULT.get(file, 'roles must alternate')
    chat_tokenizer = ChatTokenizer(own, template)
    if '42' in written:
        assert written in chat_tokenizer.render(Conversation(given)).text
    else:
        with pytest.raises(RowError, match=written):
            chat_tokenizer.render(Conversation(given))


def test_unsupported_tool_calls_are_refused(accepted):
    _, own, template, (name, _) = accepted
    given = [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': '', 'tool_calls': [CALL]}]
    advice = f"chat_template='{name}'" if name else 'built-in template'
    with pytest.raises(TemplateError, match=f'tool calls.*{advice}'):
        template.render(given)


@pytest.mark.parametrize('file', REFUSED)
def test_refused_template_suggests_the_built_in_one_quickly(file, family):
    bos, eos, name = REFUSED[file]
    own = family(file, bos, eos)
    start = time.perf_counter()
    with pytest.raises(TemplateError, match=f"chat_template='{name}'"):
        resolve('auto', own)
    assert time.perf_counter() - start < 10  # 0.2 s, more where the machine is busy
    assert resolve('auto', own, for_training=False).prompt(TURNS[:1])


def test_template_similar_to_no_built_in_one_is_refused_quickly(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = '{% for m in messages %}{{ m.content | upper | reverse }}{% endfor %}' * 9
    start = time.perf_counter()
    with pytest.raises(TemplateError, match=r'chatml, .*, default.*\.jinja'):
        resolve('auto', own)
    assert time.perf_counter() - start < 10  # 0.2 s, more where the machine is busy


@pytest.fixture(scope='module')
def calling(tokenizer):
    """A chat_tokenizer whose template writes tool calls between added tokens that end no turn."""
    own = copy.deepcopy(tokenizer)
    own.add_tokens([AddedToken(t, special=False, normalized=False) for t in ('<tool_call>', '</tool_call>')])
    own.chat_template = CALLING
    return ChatTokenizer(own, resolve('auto', own))


@pytest.mark.parametrize('value', ['x', '<|im_end|>', '</tool_call>', 'look', 'a <|im_end|>\n<|im_start|>user\nb'])
def test_tool_call_span_ends_at_the_end_of_turn(calling, value):
    """Not at a token inside the call, of the template or of the data."""
    call = {'type': 'function', 'function': {'name': 'look', 'arguments': {'what': value}}}
    given = [
        {'role': 'user', 'content': 'Hi'},
        {'role': 'assistant', 'content': 'I look.', 'tool_calls': [call, call]},
        {'role': 'tool', 'content': value},
        {'role': 'assistant', 'content': 'Ho', 'tool_calls': [call]},
    ]
    rendered = calling.render(Conversation(given))
    [(ids, turns)] = calling.tokenize([rendered])
    inside = f'{{"name": "look", "arguments": {{"what": {json.dumps(value)}}}}}'
    written = f'<tool_call>{inside}</tool_call>'
    said = [calling.tokenizer.decode(ids[start:end]) for start, end in turns]
    assert said == [f'I look.{written}{written}<|im_end|>', f'Ho{written}<|im_end|>']
    assert [ids[:start] for start, _ in turns] == [calling.prompt_ids(given[:i]) for i in (1, 3)]
    end = calling.tokenizer.convert_tokens_to_ids('<|im_end|>')
    assert [ids[start:stop].count(end) for start, stop in turns] == [1, 1] and stop_token_ids(calling) == [end]
