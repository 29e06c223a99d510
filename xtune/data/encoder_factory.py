"""The encoder of each source: with the chat template of the run, or with the source's own."""

from ..config.sections import Source
from ..errors import TemplateError
from ..templates.resolve import resolve
from .chat_tokenizer import ChatTokenizer
from .encode import Encoder


class EncoderFactory:
    """Create the encoder of a source.

    Rows of plain text get the template `plain`, whatever the template of the run, unless the source has its own.

    Args:
        chat_tokenizer: That of the run.
        max_length: Tokens per sample.
        overlong: What to do with longer samples, see `Encoder`.
        train_on: Which assistant messages get a loss, see `Encoder`.
    """

    def __init__(self, chat_tokenizer: ChatTokenizer, max_length: int, overlong: str, train_on: str) -> None:
        self.chat_tokenizer = chat_tokenizer
        self._settings = max_length, overlong, train_on
        self._by_template = {chat_tokenizer.template.name: chat_tokenizer}

    def for_source(self, source: Source) -> Encoder:
        """Return the encoder for the rows of `source`.

        Raises:
            TemplateError: Its template does not exist, or does not fit the tokenizer.
        """
        if source.template is not None:
            return Encoder(self._with_template(source.template, source.path), *self._settings)
        is_plain = self.chat_tokenizer.template.name == 'plain'
        return Encoder(self.chat_tokenizer, *self._settings, plain=None if is_plain else self._plain(source.path))

    def _plain(self, path: str) -> ChatTokenizer | None:
        try:
            return self._with_template('plain', path)
        except TemplateError:  # the tokenizer has no eos: only rows of plain text are refused then
            return None

    def _with_template(self, name: str, path: str) -> ChatTokenizer:
        if name not in self._by_template:
            tokenizer, mode = self.chat_tokenizer.tokenizer, self.chat_tokenizer.special_tokens.mode
            try:
                self._by_template[name] = ChatTokenizer(tokenizer, resolve(name, tokenizer), mode)
            except TemplateError as error:
                raise TemplateError(f'chat template of the data set {path}: {error}') from error
        return self._by_template[name]
