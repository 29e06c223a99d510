"""Conversations with tools: the exact text where a template has a form for them, a refusal where it has none.

`files/tools/` holds the text of one conversation; what is trained stands between ⟦ and ⟧.
"""

from pathlib import Path

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from xtune.templates import FOLDER, NAMES

FILES = Path(__file__).parent / 'files' / 'tools'
WITH_TOOLS = sorted(path.stem for path in FILES.glob('*.txt'))
PARAMETERS = {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']}
WEATHER = {'name': 'weather', 'description': 'Weather of a <city>.', 'parameters': PARAMETERS}
TOOLS = [{'type': 'function', 'function': WEATHER}]


def call(**arguments):
    return {'type': 'function', 'function': {'name': 'weather', 'arguments': arguments}}


ASKED = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': 'Is it warm in Zürich?'},
    {'role': 'assistant', 'content': '', 'tool_calls': [call(city='Zürich', days=2, now=True)]},
    {'role': 'tool', 'content': '{"celsius": 28}'},
    {'role': 'assistant', 'content': 'Yes, 28 °C.'},
    {'role': 'user', 'content': 'Thanks'},
    {'role': 'assistant', 'content': 'Welcome.'},
]
TWO_CALLS = [
    {'role': 'user', 'content': 'Rome or Oslo?'},
    {'role': 'assistant', 'content': 'Let me see.', 'tool_calls': [call(city='Rome'), call(city='Oslo')]},
    {'role': 'tool', 'content': '1'},
    {'role': 'tool', 'content': '2'},
    {'role': 'assistant', 'content': 'Oslo.'},
]
PLAIN = [ASKED[1], ASKED[4]]
# Of the templates without tools, `default` takes the results.
REFUSED = {(name, what) for name in {*NAMES} - {*WITH_TOOLS, 'moss_sft'} for what in ('tools', 'tool_calls', 'tool')}
REFUSED -= {('default', 'tool')}
HERMES_CALLS = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
)
HERMES_RESULTS = (
    '\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n'
    '<|im_start|>assistant\n'
)


def render(name, messages, tools=None, **options):
    """Return the text and the trained spans."""
    [text], [spans] = render_jinja_template(
        [messages],
        tools,
        chat_template=(FOLDER / f'{name}.jinja').read_text('utf-8'),
        return_assistant_tokens_mask=True,
        bos_token='<bos>',
        eos_token='<eos>',
        **options,
    )
    return text, spans


def prompt(name, messages, tools=None):
    return render(name, messages, tools, add_generation_prompt=True)[0]


def marked(text, spans):
    for start, end in reversed(spans):
        text = f'{text[:start]}⟦{text[start:end]}⟧{text[end:]}'
    return text


@pytest.mark.parametrize('name', WITH_TOOLS)
def test_tools_calls_and_results(name):
    text, spans = render(name, ASKED, TOOLS)
    assert marked(text, spans).removesuffix('\n') == (FILES / f'{name}.txt').read_text('utf-8').removesuffix('\n')
    assert [prompt(name, ASKED[:i], TOOLS) for i in (2, 4, 6)] == [text[:start] for start, _ in spans]


@pytest.mark.parametrize(
    ('name', 'reply', 'results'),
    [
        ('chatml', HERMES_CALLS, HERMES_RESULTS),
        ('qwen_chat', HERMES_CALLS, HERMES_RESULTS),
        ('qwen3', HERMES_CALLS, HERMES_RESULTS + '<think>\n\n</think>\n\n'),
        (
            'internlm2_chat',
            'Let me see.<|action_start|><|plugin|>\n{"name": "weather", "parameters": {"city": "Rome"}}<|action_end|>'
            '<|action_start|><|plugin|>\n{"name": "weather", "parameters": {"city": "Oslo"}}<|action_end|><|im_end|>',
            '\n<|im_start|>environment name=<|plugin|>\n1<|im_end|>\n<|im_start|>environment name=<|plugin|>\n'
            '2<|im_end|>\n<|im_start|>assistant\n',
        ),
        (
            'mistral_v3',
            ' Let me see.[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}, '
            '{"name": "weather", "arguments": {"city": "Oslo"}}]<eos>',
            '[TOOL_RESULTS] {"content": 1}[/TOOL_RESULTS][TOOL_RESULTS] {"content": 2}[/TOOL_RESULTS]',
        ),
        (
            'mistral_nemo',
            'Let me see.[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}}, '
            '{"name": "weather", "arguments": {"city": "Oslo"}}]<eos>',
            '[TOOL_RESULTS]{"content": 1}[/TOOL_RESULTS][TOOL_RESULTS]{"content": 2}[/TOOL_RESULTS]',
        ),
    ],
)
def test_text_with_two_calls_and_two_results(name, reply, results):
    text, [(start, end), (answer, _)] = render(name, TWO_CALLS)
    assert text[start:end] == reply
    assert text[end:answer] == results


def test_tools_without_a_system_message():
    """Without one, chatml and Qwen3 have the tools alone, Qwen its default text, ChatGLM3 a sentence of its pages."""
    heads = {
        name: render(name, ASKED[1:], TOOLS)[0].splitlines()[1] for name in ('chatml', 'qwen3', 'qwen_chat', 'chatglm3')
    }
    assert heads == {
        'chatml': '# Tools',
        'qwen3': '# Tools',
        'qwen_chat': 'You are a helpful assistant',
        'chatglm3': ' Answer the following questions as best as you can. You have access to the following tools:',
    }
    assert render('internlm2_chat', ASKED[1:], TOOLS)[0].startswith('<bos><|im_start|>system name=<|plugin|>\n[{"name"')
    assert '<|im_start|>system' not in render('chatml', ASKED[1:])[0]


@pytest.mark.parametrize('name, gap', [('mistral_v3', ' '), ('mistral_nemo', '')])
def test_mistral_writes_call_ids(name, gap):
    asked = [{**m, 'tool_call_id': 'a1b2c3d4e'} if m['role'] == 'tool' else m for m in ASKED]
    asked[2] = {**asked[2], 'tool_calls': [{**asked[2]['tool_calls'][0], 'id': 'a1b2c3d4e'}]}
    text, _ = render(name, asked, TOOLS)
    assert '"now": true}, "id": "a1b2c3d4e"}]<eos>' in text
    assert f'[TOOL_RESULTS]{gap}{{"content": {{"celsius": 28}}, "call_id": "a1b2c3d4e"}}' in text


def test_default_writes_a_result_like_a_system_message():
    messages = [*TWO_CALLS[:1], {'role': 'assistant', 'content': 'Action:look'}, *TWO_CALLS[2:]]
    text, spans = render('default', messages)
    assert marked(text, spans) == (
        '<bos><|User|>:Rome or Oslo?\n<|Bot|>:⟦Action:look<eos>⟧\n<|System|>:1\n<|System|>:2\n<|Bot|>:⟦Oslo.<eos>⟧\n'
    )
    assert prompt('default', messages[:4]) == text[: spans[1][0]]


def test_moss_order_of_commands_results_and_answer():
    commands = '<|Inner Thoughts|>: Look.<eot>\n<|Commands|>: Search("x")<eoc>'
    messages = [
        {'role': 'user', 'content': 'Who?'},
        {'role': 'assistant', 'content': commands},
        {'role': 'tool', 'content': 'Search("x") => y'},
        {'role': 'assistant', 'content': 'He.'},
    ]
    searched = f'<bos><|Human|>: Who?<eoh>\n⟦{commands}<eos>⟧\n'
    whole = f'{searched}<|Results|>: Search("x") => y<eor>\n<|MOSS|>:⟦ He.<eom><eos>⟧\n'
    assert marked(*render('moss_sft', messages[:2])) == searched
    assert marked(*render('moss_sft', messages)) == whole
    assert prompt('moss_sft', messages[:3]) == whole[: whole.rindex('⟦')].replace('⟦', '').replace('⟧', '')
    untagged = [messages[0], {'role': 'assistant', 'content': 'Search("x")'}, *messages[2:]]
    assert marked(*render('moss_sft', untagged)) == whole.replace(commands, 'Search("x")')
    with pytest.raises(jinja2.TemplateError, match='commands'):
        render('moss_sft', [*messages[:3], messages[1]])
    with pytest.raises(jinja2.TemplateError, match='role tool'):
        render('moss_sft', [messages[0], messages[2]])
    for refused, tools in ((messages, TOOLS), (ASKED, None)):
        with pytest.raises(jinja2.TemplateError, match='tools.*system message'):
            render('moss_sft', refused, tools)


@pytest.mark.parametrize(('name', 'what'), sorted(REFUSED))
def test_template_without_tool_support_refuses_tools(name, what):
    messages = {'tools': PLAIN, 'tool_calls': ASKED[:3], 'tool': [*PLAIN, ASKED[3]]}[what]
    with pytest.raises(jinja2.TemplateError, match=f'{name} .*tools'):
        render(name, messages, TOOLS if what == 'tools' else None)


@pytest.mark.parametrize('name', ['chatglm3', 'glm4', 'gpt_oss', 'llama3_chat'])
def test_several_calls_are_refused_if_unsupported(name):
    with pytest.raises(jinja2.TemplateError, match=f'{name} does not support several tool calls'):
        render(name, TWO_CALLS)


def test_text_beside_one_call():
    beside = [TWO_CALLS[0], {**TWO_CALLS[1], 'tool_calls': TWO_CALLS[1]['tool_calls'][:1]}]
    text, [(start, end)] = render('chatglm3', beside)
    assert text[start:end] == (
        '\n Let me see.<|assistant|>weather\n ```python\ntool_call(city="Rome")\n```<|observation|>'
    )
    text, [(start, end)] = render('glm4', beside)
    assert text[start:end] == '\nLet me see.<|assistant|>weather\n{"city": "Rome"}<|observation|>'
    with pytest.raises(
        jinja2.TemplateError, match='llama3_chat does not support .* text, in a message with a tool call'
    ):
        render('llama3_chat', beside)


@pytest.mark.parametrize('name', ['chatml', 'qwen3', 'qwen_chat'])
def test_two_calls_without_text(name):
    text, [(start, end), _] = render(name, [TWO_CALLS[0], {**TWO_CALLS[1], 'content': ''}, *TWO_CALLS[2:]])
    assert 'Let me see.\n' + text[start:end] == HERMES_CALLS


def test_whitespace_beside_a_call_is_ignored():
    asked = [{**m, 'content': ' \n'} if 'tool_calls' in m else m for m in ASKED]
    assert render('llama3_chat', asked, TOOLS) == render('llama3_chat', ASKED, TOOLS)


def test_chatglm3_stops_before_results_if_the_call_is_text():
    messages = [TWO_CALLS[0], {'role': 'assistant', 'content': 'Look: both'}, *TWO_CALLS[2:]]
    assert marked(*render('chatglm3', messages)) == (
        '[gMASK]sop<|user|>\n Rome or Oslo?<|assistant|>⟦\n Look: both<|observation|>⟧\n 1<|observation|>\n 2'
        '<|assistant|>⟦\n Oslo.<|user|>⟧'
    )


def texts(messages):
    """Return `messages` with the arguments of calls as JSON text, as chat completion APIs write them."""
    return [
        {**m, 'tool_calls': [{**c, 'function': {**c['function'], 'arguments': ARGUMENTS}} for c in m['tool_calls']]}
        if 'tool_calls' in m
        else m
        for m in messages
    ]


ARGUMENTS = '{"city": "Zürich", "days": 2, "now": true}'
# Their forms of a call are no JSON, and Jinja cannot read it.
OF_OBJECTS = ['chatglm3', 'lfm2_5', 'nemotron3', 'qwen3_5']


@pytest.mark.parametrize('name', sorted({*WITH_TOOLS} - {*OF_OBJECTS}))
def test_arguments_may_be_json_text(name):
    """As vLLM and OpenAI clients pass them; they are not quoted a second time."""
    assert render(name, texts(ASKED), TOOLS) == render(name, ASKED, TOOLS)


@pytest.mark.parametrize('name', OF_OBJECTS)
def test_json_text_arguments_are_refused_by_non_json_formats(name):
    with pytest.raises(jinja2.TemplateError, match=f'{name} .*arguments.*JSON'):
        render(name, texts(ASKED), TOOLS)


@pytest.mark.parametrize('given', ['{"a": "x\\"y"}', '{}', '{"a": [1, {"b": null}], "c": "é"}'])
@pytest.mark.parametrize('name', ['chatml', 'deepseek_v3_1', 'gpt_oss', 'llama3_chat', 'mistral_v3'])
def test_json_text_arguments_are_written_unchanged(name, given):
    asked = {'role': 'assistant', 'content': '', 'tool_calls': [{'function': {'name': 'weather', 'arguments': given}}]}
    text, [(start, end)] = render(name, [ASKED[1], asked])
    assert text[start:end].count(given) == 1


XML = '<tool_call>\n<function=weather>\n<parameter=city>\n{}\n</parameter>\n</function>\n</tool_call>'
# Template -> two calls beside text, and what stands before the reply to their results.
NEWER = {
    'qwen3_5': (
        f'Let me see.\n\n{XML.format("Rome")}\n{XML.format("Oslo")}<|im_end|>',
        HERMES_RESULTS + '<think>\n\n</think>\n\n',
    ),
    'nemotron3': (
        f'Let me see.\n{XML.format("Rome")}\n{XML.format("Oslo")}\n<|im_end|>',
        '\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>\n<|im_end|>\n'
        '<|im_start|>assistant\n<think></think>',
    ),
    'lfm2_5': (
        "Let me see.<|tool_call_start|>[weather(city='Rome'), weather(city='Oslo')]<|tool_call_end|><|im_end|>",
        '\n<|im_start|>tool\n1<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n',
    ),
    'deepseek_v3_1': (
        'Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><eos>',
        '<｜tool▁output▁begin｜>1<｜tool▁output▁end｜><｜tool▁output▁begin｜>2<｜tool▁output▁end｜>',
    ),
}


@pytest.mark.parametrize('name', NEWER)
def test_two_calls_and_two_results_of_newer_formats(name):
    text, [(start, end), (answer, _)] = render(name, TWO_CALLS)
    assert (text[start:end], text[end:answer]) == NEWER[name]


@pytest.mark.parametrize('name', ['qwen3_5', 'nemotron3'])
def test_only_nested_parameter_values_are_json(name):
    asked = {'role': 'assistant', 'content': '', 'tool_calls': [call(a=[1, 'é'], b={'c': None}, d='"x"', e=None)]}
    text, [(start, end)] = render(name, [ASKED[1], asked])
    values = [part.split('\n')[1] for part in text[start:end].split('<parameter=')[1:]]
    assert values == ['[1, "é"]', '{"c": null}', '"x"', 'None']


def test_nemotron3_lists_all_fields_of_a_tool():
    city = {'type': 'string', 'description': ' A city. ', 'enum': ['Rome'], 'pattern': 'R.*', 'examples': ['Rome']}
    parameters = {'type': 'object', 'properties': {'city': city}, 'additionalProperties': False}
    tool = {'type': 'function', 'function': {'name': 'weather', 'parameters': parameters, 'strict': True}}
    listed = render('nemotron3', PLAIN, [tool])[0].split('<tools>')[1].split('</tools>')[0]
    assert listed == (
        '\n<function>\n<name>weather</name>\n<parameters>\n<parameter>\n<name>city</name>\n<type>string</type>\n'
        '<description>A city.</description>\n<enum>["Rome"]</enum>\n<pattern>R.*</pattern>\n'
        '<examples>["Rome"]</examples>\n</parameter>\n<additionalProperties>False</additionalProperties>\n'
        '</parameters>\n<strict>True</strict>\n</function>\n'
    )


def test_gpt_oss_writes_the_types_of_tools():
    """As the guide to harmony has them."""
    properties = {
        'place': {'type': 'string', 'description': 'A city.\nOr a town.'},
        'unit': {'type': 'string', 'enum': ['celsius', 'kelvin'], 'default': 'celsius'},
        'days': {'type': 'array', 'items': {'type': 'integer'}},
        'either': {'anyOf': [{'type': 'number'}, {'type': 'null'}]},
        'area': {'type': 'object', 'properties': {'km': {'type': ['number', 'string']}}, 'required': ['km']},
        'rest': {},
        'deep': {'type': 'boolean', 'default': False},
    }
    parameters = {'type': 'object', 'properties': properties, 'required': ['place', 'area']}
    tools = [
        {'type': 'function', 'function': {'name': 'here', 'description': 'Where I am.', 'parameters': {}}},
        {'type': 'function', 'function': {'name': 'weather', 'parameters': parameters}},
    ]
    text = prompt('gpt_oss', PLAIN[:1], tools)
    assert text.endswith('<|end|><|start|>assistant')
    assert text.split('<|start|>developer<|message|>')[1].split('<|end|>')[0] == (
        '# Tools\n\n## functions\n\nnamespace functions {\n\n// Where I am.\ntype here = () => any;\n\n'
        'type weather = (_: {\n// A city.\n// Or a town.\nplace: string,\n'
        'unit?: "celsius" | "kelvin", // default: celsius\ndays?: number[],\neither?: number | null,\n'
        'area: {\nkm: number | string,\n},\nrest?: any,\ndeep?: boolean, // default: false\n}) => any;\n\n'
        '} // namespace functions'
    )


def test_gpt_oss_calls_with_text_and_reasoning():
    talk = [
        ASKED[1],
        {'role': 'assistant', 'content': 'I look.', 'thinking': 'Ask.', 'tool_calls': [call(city='Rome')]},
        ASKED[3],
        {'role': 'assistant', 'content': 'Yes.', 'thinking': 'Warm.'},
    ]
    text, spans = render('gpt_oss', talk, TOOLS)
    assert [text[start:end] for start, end in spans] == [
        '<|channel|>analysis<|message|>Ask.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>'
        '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}'
        '<|call|>',
        '<|channel|>analysis<|message|>Warm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>',
    ]
    assert [prompt('gpt_oss', talk[:i], TOOLS) for i in (1, 3)] == [text[:start] for start, _ in spans]
    with pytest.raises(jinja2.TemplateError, match='gpt_oss accepts a tool result only after a tool call'):
        render('gpt_oss', [ASKED[1], ASKED[3]], TOOLS)


def test_deepseek_v3_1_refuses_reasoning_after_a_tool_result():
    talk = [*ASKED[1:4], {**ASKED[4], 'reasoning_content': 'Warm.'}]
    with pytest.raises(jinja2.TemplateError, match='does not support reasoning after a tool result'):
        render('deepseek_v3_1', talk, TOOLS)


def test_lfm2_5_keeps_reasoning_after_the_last_question_only():
    talk = [*ASKED[1:4], {**ASKED[4], 'reasoning_content': 'Warm.'}]
    text, spans = render('lfm2_5', talk)
    assert text[slice(*spans[-1])] == '<think>Warm.</think>Yes, 28 °C.<|im_end|>'
    assert 'Warm.' not in render('lfm2_5', [*talk, *ASKED[5:]])[0]
    inline = [PLAIN[0], {**PLAIN[1], 'content': '<think>Hm</think> Yes'}]
    assert [text.count('Hm') for text, _ in (render('lfm2_5', inline), render('lfm2_5', inline * 2))] == [1, 1]
