"""The encoder of each source: that of the run, or one with a template of its own."""

from ..config.sections import Source
from ..errors import TemplateError
from ..templates.resolve import resolve
from .encode import Encoder
from .tokenise import Tokeniser


class Encoders:
    """Makes the encoder of a source.

    Rows of plain text get the template `plain`, whatever the template of the run, unless the source names another one.

    Args:
        tokeniser: That of the run.
        max_length: Tokens per sample.
        overlong: What becomes of longer ones, see `Encoder`.
        train_on: Which replies get a loss, see `Encoder`.
    """

    def __init__(self, tokeniser: Tokeniser, max_length: int, overlong: str, train_on: str) -> None:
        self.tokeniser, self.max_length, self.overlong, self.train_on = tokeniser, max_length, overlong, train_on
        self._named = {tokeniser.template.name: tokeniser}

    def of(self, source: Source) -> Encoder:
        """Return the encoder for the rows of `source`.

        Raises:
            TemplateError: Its template does not exist, or does not fit the tokenizer.
        """
        settings = self.max_length, self.overlong, self.train_on
        if source.chat_template is not None:
            return Encoder(self._tokeniser(source.chat_template, source.path), *settings)
        is_plain = self.tokeniser.template.name == 'plain'
        return Encoder(self.tokeniser, *settings, plain=None if is_plain else self._plain(source.path))

    def _plain(self, path: str) -> Tokeniser | None:
        try:
            return self._tokeniser('plain', path)
        except TemplateError:  # without an end token the rows of text are refused, not those of chats
            return None

    def _tokeniser(self, name: str, path: str) -> Tokeniser:
        if name not in self._named:
            tokenizer, mode = self.tokeniser.tokenizer, self.tokeniser.control.mode
            try:
                self._named[name] = Tokeniser(tokenizer, resolve(name, tokenizer), mode)
            except TemplateError as error:
                raise TemplateError(f'the template of the data set {path}: {error}') from error
        return self._named[name]
