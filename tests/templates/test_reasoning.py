"""Templates of reasoning models: where the prompt ends, which reasoning is trained, which is dropped."""

import copy

import pytest
from transformers import AddedToken
from transformers.utils.chat_template_utils import render_jinja_template

from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.stop_tokens import stop_token_ids
from xtune.errors import TemplateError
from xtune.messages import Conversation, exchange
from xtune.templates import THINKING
from xtune.templates.resolve import resolve

# Template -> its end of turn, what its prompt has behind the tag of the role, a reply without a thought and with one.
FORMS = {
    'qwen3': ('<|im_end|>', '<think>\n\n</think>\n\n', '4.', '<think>\nSum.\n</think>\n\n4.'),
    'qwen3_thinking': ('<|im_end|>', '', '<think>\n\n</think>\n\n4.', '<think>\nSum.\n</think>\n\n4.'),
    'qwen3_5': ('<|im_end|>', '<think>\n\n</think>\n\n', '4.', 'Sum.\n</think>\n\n4.'),
    'qwen3_5_thinking': ('<|im_end|>', '<think>\n', '\n</think>\n\n4.', 'Sum.\n</think>\n\n4.'),
    'nemotron3': ('<|im_end|>', '<think></think>', '4.', 'Sum.\n</think>\n4.'),
    'nemotron3_thinking': ('<|im_end|>', '<think>\n', '\n</think>\n4.', 'Sum.\n</think>\n4.'),
    'deepseek_v3_1': ('<｜end▁of▁sentence｜>', '</think>', '4.', 'Sum.</think>4.'),
    'deepseek_v3_1_thinking': ('<｜end▁of▁sentence｜>', '<think>', '</think>4.', 'Sum.</think>4.'),
    'deepseek_r1': ('<｜end▁of▁sentence｜>', '<think>\n', '\n</think>\n\n4.', 'Sum.\n</think>\n\n4.'),
    'gpt_oss': (
        '<|return|>',
        '<|channel|>final<|message|>',
        '4.',
        '<|channel|>analysis<|message|>Sum.<|end|><|start|>assistant<|channel|>final<|message|>4.',
    ),
    'gpt_oss_thinking': (
        '<|return|>',
        '',
        '<|channel|>final<|message|>4.',
        '<|channel|>analysis<|message|>Sum.<|end|><|start|>assistant<|channel|>final<|message|>4.',
    ),
}
HEADS = {
    **dict.fromkeys(('qwen3', 'qwen3_5', 'nemotron3'), '<|im_start|>assistant\n'),
    **dict.fromkeys(('deepseek_r1', 'deepseek_v3_1'), '<｜Assistant｜>'),
    'gpt_oss': '<|start|>assistant',
}
TAGS = (
    '<|im_start|> <|im_end|> <｜User｜> <｜Assistant｜> <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <|start|> <|end|>'
)
TAGS += ' <|channel|> <|message|> <|return|> <|call|>'
THOUGHT = exchange('What is 2+2?', '<think>\nSum.\n</think>\n\n4.')
AGAIN = exchange('And 3+3?', '6.')
each_form = pytest.mark.parametrize('name', FORMS)


@pytest.fixture(scope='module')
def chat_tokenizer(tokenizer):
    """Return a function that gives the chat_tokenizer of a template, with its tags as tokens."""

    def _tokenizer(name):
        own = copy.deepcopy(tokenizer)
        own.add_tokens([AddedToken(t, special=True, normalized=False) for t in TAGS.split()], special_tokens=True)
        own.add_tokens([AddedToken(t, special=False, normalized=False) for t in ('<think>', '</think>')])
        own.eos_token, own.bos_token = FORMS[name][0], '<｜begin▁of▁sentence｜>'
        return ChatTokenizer(own, resolve(name, own))

    return _tokenizer


def trained(template, messages):
    text, spans = template.render(messages)
    return [text[start:end] for start, end in spans]


def rendered(template, messages, **options):
    """Return the prompt that `apply_chat_template` makes, as other programs do with the saved template."""
    variables = {**template.variables, **options}
    return render_jinja_template([messages], chat_template=template.source, add_generation_prompt=True, **variables)[0][
        0
    ]


@each_form
def test_end_of_prompt_and_trained_text(name, chat_tokenizer):
    end, opening, plain, thought = FORMS[name]
    template, base = chat_tokenizer(name).template, THINKING.get(name, name)
    assert template.prompt(THOUGHT[:1]).endswith(HEADS[base] + opening)
    assert trained(template, exchange('What is 2+2?', '4.')) == [plain + end]
    text, [(start, stop)] = template.render(THOUGHT)
    assert text[start:stop] == thought + end
    # Behind a prompt that inference can ask for.
    assert text[:start] == rendered(template, THOUGHT[:1], enable_thinking=True)


@pytest.mark.parametrize('name', THINKING)
def test_thinking_template_trains_after_its_own_prompt(name, chat_tokenizer):
    template, base = chat_tokenizer(name).template, chat_tokenizer(THINKING[name]).template
    for messages in (THOUGHT, exchange('What is 2+2?', '4.')):
        text, [(start, _)] = template.render(messages)
        assert text[:start] == template.prompt(messages[:1]) == rendered(base, messages[:1], enable_thinking=True)
    assert rendered(template, THOUGHT[:1]) == template.prompt(THOUGHT[:1])
    assert rendered(template, THOUGHT[:1], enable_thinking=False) == base.prompt(THOUGHT[:1])


@each_form
def test_tokens_before_each_message_equal_the_prompt(name, chat_tokenizer):
    own = chat_tokenizer(name)
    messages = exchange('What is 2+2?', '4.') + AGAIN
    [(ids, turns)] = own.tokenize([own.render(Conversation(messages))])
    assert [ids[:start] for start, _ in turns] == [own.prompt_ids(messages[:i]) for i in (1, 3)]
    end = own.tokenizer.convert_tokens_to_ids(FORMS[name][0])
    calls = [own.tokenizer.convert_tokens_to_ids('<|call|>')] if 'gpt_oss' in name else []
    assert [ids[stop - 1] for _, stop in turns] == [end, end] and stop_token_ids(own) == [end, *calls]


@each_form
def test_earlier_reasoning_is_dropped(name, chat_tokenizer):
    template = chat_tokenizer(name).template
    plain = exchange('What is 2+2?', '4.')
    assert template.render(THOUGHT + AGAIN) == template.render(plain + AGAIN)
    assert template.prompt(THOUGHT + AGAIN[:1]) == template.prompt(plain + AGAIN[:1])
    # What xtune chat remembers of a reply that closes the thought of its prompt.
    closed = exchange('What is 2+2?', '</think>\n\n4.')
    assert template.prompt(closed + AGAIN[:1]) == template.prompt(plain + AGAIN[:1])


@each_form
def test_reasoning_may_be_a_field(name, chat_tokenizer):
    template = chat_tokenizer(name).template
    for key in ('reasoning_content', 'thinking') if 'gpt_oss' in name else ('reasoning_content',):
        messages = [THOUGHT[0], {'role': 'assistant', 'content': '4.', key: 'Sum.\n'}]
        assert template.render(messages) == template.render(THOUGHT)


def test_template_without_reasoning_support_is_refused(tokenizer):
    messages = [THOUGHT[0], {'role': 'assistant', 'content': '4.', 'reasoning_content': 'Sum.'}]
    with pytest.raises(TemplateError, match='`chatml`.*qwen3_thinking'):
        resolve('chatml', tokenizer).render(messages)


def test_reasoning_between_tool_calls_is_kept(chat_tokenizer):
    call = {'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 2}}}
    messages = [
        THOUGHT[0],
        {'role': 'assistant', 'content': '', 'reasoning_content': 'Ask.', 'tool_calls': [call]},
        {'role': 'tool', 'content': '4'},
        THOUGHT[1],
    ]
    own = chat_tokenizer('qwen3_thinking')
    first, second = trained(own.template, messages)
    assert first == (
        '<think>\nAsk.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>'
    )
    assert second == FORMS['qwen3_thinking'][3] + '<|im_end|>'
    text, spans = own.template.render(messages)
    assert [text[:start] for start, _ in spans] == [own.template.prompt(messages[:i]) for i in (1, 3)]


def test_gpt_oss_writes_date_and_effort_if_set(chat_tokenizer):
    template = chat_tokenizer('gpt_oss').template
    assert 'date' not in template.prompt(THOUGHT[:1])
    text = rendered(template, THOUGHT[:1], current_date='2025-08-05', reasoning_effort='low')
    assert '\nKnowledge cutoff: 2024-06\nCurrent date: 2025-08-05\n\nReasoning: low\n\n# Valid channels' in text


def test_special_tokens_in_reasoning_stay_text(chat_tokenizer):
    own = chat_tokenizer('gpt_oss_thinking')
    [(ids, [(start, stop)])] = own.tokenize([own.render(Conversation(exchange('Hi', '<think>A<|end|>B</think>C')))])
    end = own.tokenizer.convert_tokens_to_ids('<|end|>')
    assert ids[start:stop].count(end) == 1 and '<|end|>B' in own.tokenizer.decode(ids[start:stop])
