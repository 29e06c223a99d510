"""Every named template against the official text of its models, by transformers' own renderer.

`files/official.json` holds the texts that the models' own templates and code write for one conversation, and which
characters are the replies; `files/differences.json` is the table of all differences from it; `files/hub/` holds the
published templates. What is trained stands between ⟦ and ⟧.
"""

import json
from pathlib import Path

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from xtune import templates
from xtune.templates import ACCEPTED, ALIASES, FOLDER, NAMES, THINKING

FILES = Path(__file__).parent / 'files'
PAGE = (Path(__file__).parents[2] / 'docs' / 'en' / 'templates.md').read_text('utf-8')
DATA = json.loads((FILES / 'official.json').read_text('utf-8'))
OFFICIAL, TURNS = DATA['official'], DATA['conversation']
FORMS = {'without_system': TURNS, 'with_system': [{'role': 'system', 'content': DATA['system']}, *TURNS]}
NO_RECORD = {'bos': '<s>', 'eos': '</s>', 'stop_words': ['</s>']}

# Template -> why its text or spans are not the official ones (or there are none), and what they are.
DIFFERENCES = json.loads((FILES / 'differences.json').read_text('utf-8'))
PROMPT_DIFFERENCES = {
    'minicpm': ('4.<', '4.</s><'),
    'code_llama_70b_chat': ('Source: assistant\n\n ', 'Source: assistant\nDestination: user\n\n '),
}
WITHOUT_BOS = 'baichuan_chat baichuan2_chat chatml gpt_oss nemotron3 phi3_chat qwen3 qwen3_5 qwen_chat'.split()
TEMPLATES = sorted({*NAMES, *OFFICIAL})
each_template = pytest.mark.parametrize('name', TEMPLATES)
each_form = pytest.mark.parametrize('form', FORMS)


def source(name):
    return (FOLDER / f'{ALIASES.get(name, name)}.jinja').read_text('utf-8')


def special(name):
    record = OFFICIAL.get(name, NO_RECORD)
    return {'bos_token': record['bos'], 'eos_token': record['eos']}


def render(name, messages):
    """Return the text and the trained spans."""
    [text], [spans] = render_jinja_template(
        [messages], chat_template=source(name), return_assistant_tokens_mask=True, **special(name)
    )
    return text, spans


def prompt(name, messages):
    options = dict(chat_template=source(name), add_generation_prompt=True, **special(name))
    return render_jinja_template([messages], **options)[0][0]


def marked(text, spans):
    for start, end in reversed(spans):
        text = f'{text[:start]}⟦{text[start:end]}⟧{text[end:]}'
    return text


def official(name, form):
    """Return the official text, or None; what an official prompt leaves out before a reply counts as trained."""
    record = OFFICIAL.get(name)
    if not record or record[form] is None:
        return None
    return marked(record[form], [(start - len(record['gap']), end) for start, end in record['spans'][form]])


def prompts_are_what_precedes_replies(name, messages):
    text, spans = render(name, messages)
    replies = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
    return [prompt(name, messages[:i]) for i in replies] == [text[:start] for start, _ in spans]


def test_every_name_of_the_predecessor_exists():
    assert len(DATA['predecessor_names']) == 26
    assert set(DATA['predecessor_names']) <= set(ACCEPTED)
    assert set(ALIASES.values()) <= set(NAMES) and not set(ALIASES) & set(NAMES)
    assert set(ACCEPTED) == {*NAMES, *ALIASES, *THINKING} and set(OFFICIAL) <= set(ACCEPTED)
    assert set(THINKING.values()) <= set(NAMES) and not set(THINKING) & {*NAMES, *ALIASES}
    assert set(NAMES) <= {*OFFICIAL, *DIFFERENCES}


@each_form
@each_template
def test_text_and_spans_are_the_official_ones(name, form):
    recorded = DIFFERENCES.get(ALIASES.get(name, name), {})
    assert marked(*render(name, FORMS[form])) == recorded.get(form, official(name, form))


@each_form
@pytest.mark.parametrize('name', DIFFERENCES)
def test_recorded_differences_are_real(name, form):
    assert DIFFERENCES[name]['why']
    assert DIFFERENCES[name].get(form) != official(name, form)


@each_form
@pytest.mark.parametrize('name', [name for name in OFFICIAL if OFFICIAL[name]['hub_file']])
def test_prompt_equals_that_of_the_published_template(name, form):
    """With space around all contents: what the published template trims is trimmed, and nothing else."""
    messages = [{**m, 'content': f' \n{m["content"]} \n'} for m in FORMS[form][:-1]]
    published = (FILES / 'hub' / f'{OFFICIAL[name]["hub_file"]}.jinja').read_text('utf-8')
    options = dict(chat_template=published, add_generation_prompt=True, **special(name))
    if OFFICIAL[name][form] is None:
        with pytest.raises(jinja2.TemplateError):
            render_jinja_template([messages], **options)
        return
    wanted = '<s>' * (name in ('zephyr', 'minicpm')) + render_jinja_template([messages], **options)[0][0]
    assert prompt(name, messages) == wanted.replace(*PROMPT_DIFFERENCES.get(name, ('', '')))


@each_form
@each_template
def test_prompt_equals_the_text_before_each_assistant_message(name, form):
    assert prompts_are_what_precedes_replies(name, FORMS[form])


@each_template
def test_content_is_unchanged(name):
    odd = ' {{ 1 }} {% endfor %}\n\t<b>&"\'\\ 你好 😀\n'
    messages = [{'role': 'user', 'content': odd}, {'role': 'assistant', 'content': odd}] * 3
    text, spans = render(name, messages)
    assert text.count(odd.strip()) == 6
    assert [odd.strip() in text[start:end] for start, end in spans] == [True] * 3
    assert prompts_are_what_precedes_replies(name, messages)


@each_form
@each_template
def test_assistant_messages_end_in_a_stop_token(name, form):
    stop_words = ['</s>'] if name == 'moss_sft' else OFFICIAL.get(name, NO_RECORD)['stop_words']
    text, spans = render(name, FORMS[form])
    assert len(spans) == 2
    assert all(text[start:end].endswith(tuple(stop_words)) for start, end in spans)


@each_form
@each_template
def test_bos_is_only_at_the_start(name, form):
    bos = OFFICIAL.get(name, NO_RECORD)['bos']
    text, _ = render(name, FORMS[form])
    if name in WITHOUT_BOS:
        assert not bos or bos not in text
    else:  # Llama 2 has one before each user message
        assert text.startswith(bos) and text.count(bos) == (2 if ALIASES.get(name, name) == 'llama2_chat' else 1)


@pytest.mark.parametrize('name', NAMES)
def test_the_file_works_as_the_chat_template_of_a_tokenizer(tokenizer, name):
    assert source(name).startswith('{#-\n')
    text = tokenizer.apply_chat_template(TURNS, chat_template=source(name), tokenize=False)
    own = {'bos_token': tokenizer.bos_token, 'eos_token': tokenizer.eos_token}
    assert text == render_jinja_template([TURNS], chat_template=source(name), **own)[0][0]


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'plain'])
def test_unsupported_roles_are_refused(name):
    for role in ('text', 'narrator'):
        with pytest.raises(jinja2.TemplateError, match=f'{name} does not support messages of role {role}'):
            render(name, [*TURNS, {'role': role, 'content': 'Once upon a time'}])


@pytest.mark.parametrize('name', NAMES)
def test_a_system_message_in_the_middle_is_refused_or_written(name):
    late = {'role': 'system', 'content': 'Be brief from now on.'}
    try:
        text, _ = render(name, [*TURNS[:2], late, *TURNS[2:]])
    except jinja2.TemplateError as error:
        assert 'does not support messages of role system' in str(error)
    else:
        assert late['content'] in text


def test_details_without_a_published_template():
    """Mistral v0.3 trims replies; Phi-3 writes no empty system message; a text for pretraining is trained."""
    trimmed, _ = render('mistral_v3', [TURNS[0], {'role': 'assistant', 'content': ' 4.\n'}])
    assert trimmed == '<s>[INST] What is 2+2?[/INST] 4.</s>'
    assert render('phi3_chat', [{'role': 'system', 'content': ''}, *TURNS]) == render('phi3_chat', TURNS)
    assert marked(*render('plain', [{'role': 'text', 'content': 'Once'}])) == '<s>⟦Once</s>⟧'


def test_the_tables_name_every_template():
    names = [line.split('|')[1].strip() for line in templates.__doc__.splitlines() if line.startswith('| ')]
    assert sorted(names[1:]) == sorted(NAMES)
    rows = [line.split('|')[1] for line in PAGE.split('## Names')[1].split('## ')[0].splitlines() if line[:3] == '| `']
    assert sorted(name.strip(' `()') for row in rows for name in row.split('` ') if name.strip()) == sorted(ACCEPTED)
    recorded = PAGE.split('## Differences')[1].split('## ')[0]
    assert all(f'`{name}`' in recorded for name in {*DIFFERENCES} - {'plain'})


def test_the_example_of_the_docs_is_a_template():
    example = PAGE.split('```jinja\n')[1].split('```')[0]
    options = dict(chat_template=example, bos_token='<s>', eos_token='</s>')
    [text], [spans] = render_jinja_template([TURNS], return_assistant_tokens_mask=True, **options)
    assert marked(text, spans) == '<s>user: What is 2+2?\nBot: ⟦4.</s>⟧user: And 3+3?\nBot: ⟦6.</s>⟧'
    assert render_jinja_template([TURNS[:3]], add_generation_prompt=True, **options)[0][0] == text[: spans[1][0]]
