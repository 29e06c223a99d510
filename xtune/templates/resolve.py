"""From the name in a config to a template proven to fit the tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError, did_you_mean
from . import FOLDER, NAMES
from .template import ChatTemplate, special_variables

_BOS = '{{- bos_token -}}\n'


def resolve(name: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the template `name`: 'auto', one of `NAMES`, or the path of a .jinja file.

    Raises:
        TemplateError: There is no such template, the tokenizer has none of its own, or a token it needs is missing.
    """
    source = _source(name, tokenizer)
    variables = special_variables(tokenizer)
    for needed in ('bos_token', 'eos_token'):
        if needed not in variables and needed in source:
            if needed == 'eos_token':
                raise TemplateError(f'template `{name}` ends replies with the eos token, which this tokenizer lacks')
            variables[needed] = ''
    return ChatTemplate(name, source, variables, tuple(sorted(tokenizer.get_added_vocab(), key=len, reverse=True)))


def _source(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if name == 'auto':
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get('default')
        if not own:
            raise TemplateError(
                f"template='auto' takes the model's own chat template, but its tokenizer has none; "
                f'name one of {", ".join(NAMES)}, or a .jinja file'
            )
        return own
    if name in NAMES:
        source = (FOLDER / f'{name}.jinja').read_text(encoding='utf-8')
        # Plain text starts with bos only where the tokenizer itself would put it.
        return source.replace(_BOS, '') if name == 'plain' and not _adds_bos(tokenizer) else source
    path = Path(name)
    if path.suffix in ('.jinja', '.j2') and path.is_file():
        return path.read_text(encoding='utf-8')
    raise TemplateError(f'no template is called `{name}`{did_you_mean(name, NAMES)} (known: auto, {", ".join(NAMES)})')


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer('a')['input_ids']
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id and len(ids) > 1
