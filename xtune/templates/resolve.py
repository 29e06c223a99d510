"""Load the template that a config names, and check that it fits the tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError, did_you_mean
from . import ALIASES, FOLDER, NAMES, THINKING
from .probes import TWO_EXCHANGES
from .template import ChatTemplate
from .template_tokens import REQUIRED_TOKENS, suggestions

_BOS = '{{- bos_token -}}\n'
# `thinks_always`: messages without reasoning are trained after the thinking prompt too, with empty reasoning.
_ENABLE_THINKING = '{%- set enable_thinking = enable_thinking | default(true) -%}\n{%- set thinks_always = true -%}\n'
# Formats for any base model: they start with bos only if the tokenizer itself adds it.
_ANY_TOKENIZER = ('plain', 'default', 'wizardcoder', 'moss_sft')


def resolve(name: str, tokenizer: PreTrainedTokenizerBase, for_training: bool = True) -> ChatTemplate:
    """Return the template `name`: 'auto', one of `ACCEPTED`, or the path of a .jinja file.

    Raises:
        TemplateError: There is no such template, the tokenizer has no template, a token it needs is missing, or,
            with `for_training`, its trained spans cannot be determined or its generation blocks are wrong.
    """
    template = _bind(name, _source(name, tokenizer), tokenizer)
    if for_training and not template.has_generation_blocks:
        template.render(TWO_EXCHANGES)
    elif for_training and not template.is_builtin:  # tests check the built-in ones
        template.check_generation_blocks()
    return template


def _bind(name: str, source: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    variables = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    for needed in ('bos_token', 'eos_token'):
        if needed not in variables and needed in source:
            if needed == 'eos_token' and name != 'auto':
                raise TemplateError(f'template `{name}` needs the eos token as stop token, and this tokenizer has none')
            variables[needed] = ''
    return ChatTemplate(name, source, variables, _end_tokens(tokenizer), is_builtin=_file(name) in NAMES)


def _end_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the added tokens and the tokens of built-in templates that are in the vocabulary, longest first."""
    added = set(tokenizer.get_added_vocab())
    for token in {token for tokens in REQUIRED_TOKENS.values() for token in tokens} - added:
        ids = tokenizer(token, add_special_tokens=False)['input_ids']
        if len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == token:
            added.add(token)
    return tuple(sorted(added, key=len, reverse=True))


def _source(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if name == 'auto':
        source = tokenizer.chat_template
        if isinstance(source, dict):
            source = source.get('default')
        if not source:
            raise TemplateError(
                "chat_template='auto' uses the model's own chat template, but its tokenizer has none; "
                f'use {suggestions(_end_tokens(tokenizer))}, or a .jinja file'
            )
        return source
    file = _file(name)
    if file in NAMES:
        source = (FOLDER / f'{file}.jinja').read_text(encoding='utf-8')
        source = f'{_ENABLE_THINKING}{source}' if name in THINKING else source
        return source.replace(_BOS, '') if file in _ANY_TOKENIZER and not _adds_bos(tokenizer) else source
    check_name(name)
    try:
        return Path(name).read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise TemplateError(f'the template file {name} is not UTF-8 text: {error}') from error


def check_name(name: str) -> None:
    """Check that a template exists.

    Raises:
        TemplateError: `name` is not 'auto', one of `ACCEPTED`, or the path of a .jinja file.
    """
    path, known = Path(name), (*NAMES, *ALIASES, *THINKING)
    if name == 'auto' or name in known or (path.suffix in ('.jinja', '.j2') and path.is_file()):
        return
    if path.suffix in ('.jinja', '.j2'):
        raise TemplateError(f'template file {name} does not exist')
    if path.is_file():
        raise TemplateError(f'template file {name} must end in .jinja; rename it')
    raise TemplateError(
        f'there is no template `{name}`{did_you_mean(name, known)} (known: auto, {", ".join(NAMES)}, or a .jinja file)'
    )


def _file(name: str) -> str:
    return THINKING.get(name) or ALIASES.get(name, name)


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer('a')['input_ids']
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id and len(ids) > 1
