"""From the name in a config to a template proven to fit the tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError, did_you_mean
from . import ALIASES, FOLDER, NAMES, THINKING
from .generation_marks import PROBE, check_marks
from .template import ChatTemplate, special_variables
from .template_tokens import TOKENS, suggested

_BOS = '{{- bos_token -}}\n'
# `thinks_always`: replies without a thought are trained behind the prompt for one too, so all have one, if empty.
_THINKING = '{%- set enable_thinking = enable_thinking | default(true) -%}\n{%- set thinks_always = true -%}\n'
# Formats for any base model: they start with bos only where the tokenizer itself would put it.
_ANY_TOKENIZER = ('plain', 'default', 'wizardcoder', 'moss_sft')


def resolve(name: str, tokenizer: PreTrainedTokenizerBase, for_training: bool = True) -> ChatTemplate:
    """Return the template `name`: 'auto', one of `ACCEPTED`, or the path of a .jinja file.

    Raises:
        TemplateError: There is no such template, the tokenizer has none of its own, a token it needs is missing, or,
            `for_training`, what it trains cannot be proven, or its marks stand in the wrong place.
    """
    template = _bound(name, _source(name, tokenizer), tokenizer)
    if for_training and not template.has_marks:
        template.render(PROBE)
    elif for_training and not template.own:  # tests check our own
        check_marks(template)
    return template


def _bound(name: str, source: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    variables = special_variables(tokenizer)
    for needed in ('bos_token', 'eos_token'):
        if needed not in variables and needed in source:
            if needed == 'eos_token' and name != 'auto':
                raise TemplateError(f'template `{name}` ends replies with the eos token, which this tokenizer lacks')
            variables[needed] = ''
    return ChatTemplate(name, source, variables, _added(tokenizer), own=_file(name) in NAMES)


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the added tokens, longest first, and those of named templates that are in the vocabulary itself."""
    added = set(tokenizer.get_added_vocab())
    for token in {token for tokens in TOKENS.values() for token in tokens} - added:
        ids = tokenizer(token, add_special_tokens=False)['input_ids']
        if len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == token:
            added.add(token)
    return tuple(sorted(added, key=len, reverse=True))


def _source(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if name == 'auto':
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get('default')
        if not own:
            raise TemplateError(
                f"chat_template='auto' takes the model's own chat template, but its tokenizer has none; "
                f'name one of {suggested(_added(tokenizer))}, or a .jinja file'
            )
        return own
    file = _file(name)
    if file in NAMES:
        source = (FOLDER / f'{file}.jinja').read_text(encoding='utf-8')
        source = f'{_THINKING}{source}' if name in THINKING else source
        return source.replace(_BOS, '') if file in _ANY_TOKENIZER and not _adds_bos(tokenizer) else source
    check_name(name)
    try:
        return Path(name).read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise TemplateError(f'the template file {name} is not UTF-8 text: {error}') from error


def check_name(name: str) -> None:
    """Refuse a template that is not there.

    Raises:
        TemplateError: `name` is not 'auto', one of `ACCEPTED`, or the path of a .jinja file.
    """
    path, known = Path(name), (*NAMES, *ALIASES, *THINKING)
    if name == 'auto' or name in known or (path.suffix in ('.jinja', '.j2') and path.is_file()):
        return
    if path.suffix in ('.jinja', '.j2'):
        raise TemplateError(f'there is no template file {name}')
    if path.is_file():
        raise TemplateError(f'a template file ends in .jinja; {name} does not, so rename it')
    raise TemplateError(
        f'no template is called `{name}`{did_you_mean(name, known)} (known: auto, {", ".join(NAMES)}, or a .jinja file)'
    )


def _file(name: str) -> str:
    return THINKING.get(name) or ALIASES.get(name, name)


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer('a')['input_ids']
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id and len(ids) > 1
