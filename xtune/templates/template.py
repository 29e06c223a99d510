"""A chat template: conversation -> text, and which characters of the text are trained.

The trained span of a reply is the reply and its end of turn, nothing else. Templates with `{% generation %}` marks say
so themselves. For a template without marks the span is proven: the text before a reply must be what inference would
prompt with, and the reply must be followed by a token that ends the turn.
"""

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..data.conversation import Message
from ..errors import TemplateError

_MARK = re.compile(r'\{%-?\s*generation\s*-?%\}')
Span = tuple[int, int]


@dataclass(frozen=True)
class ChatTemplate:
    """A template bound to a tokenizer's special tokens.

    `end_tokens` are the texts that may close a turn in a template without marks.
    """

    name: str
    source: str
    variables: dict[str, str]
    end_tokens: tuple[str, ...]

    @property
    def has_marks(self) -> bool:
        """Whether the template itself says what is trained."""
        return bool(_MARK.search(self.source))

    def render(self, messages: list[Message]) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters [start, end) of each reply with its end of turn.

        Raises:
            TemplateError: The template refuses the conversation, or no trained span can be proven.
        """
        if self.has_marks:
            text, spans = self._run(messages, marks=True)
        else:
            text, spans = self._run(messages), []
            spans = [self._proven_span(messages, index, text) for index in _replies(messages)]
        if len(spans) != len(_replies(messages)):
            raise TemplateError(
                f'template `{self.name}` marks {len(spans)} spans for {len(_replies(messages))} replies'
            )
        return text, spans

    def prompt(self, messages: list[Message]) -> str:
        """Return the text that a model continues with its reply to `messages`."""
        return self._run(messages, prompt=True)

    def _run(self, messages: list[Message], prompt: bool = False, marks: bool = False):
        plain = [{k: v for k, v in m.items() if k != 'train'} for m in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[plain],
                chat_template=self.source,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self.variables,
            )
        except Exception as error:  # jinja2 and raise_exception() in templates use many classes
            raise TemplateError(f'template `{self.name}` refuses this conversation: {error}') from error
        return (texts[0], spans[0]) if marks else texts[0]

    def _proven_span(self, messages: list[Message], index: int, text: str) -> Span:
        """Return the span of the reply at `index`, found by rendering the conversation up to it."""
        prompt = self._run(messages[:index], prompt=True)
        if not text.startswith(prompt):
            raise self._unproven('it renders a conversation differently from the prompt that inference uses')
        reply = messages[index]['content']
        start = len(prompt)
        for form in (reply, reply.strip()):
            at = start + len(text[start:]) - len(text[start:].lstrip()) if form != reply else start
            if text.startswith(form, at):
                end = at + len(form)
                break
        else:
            raise self._unproven('it changes the text of replies')
        tag = _match_any(self.end_tokens, text, end)
        if tag is None:
            raise self._unproven('no token ends a reply, so the model could not learn to stop')
        return start, end + tag

    def _unproven(self, why: str) -> TemplateError:
        return TemplateError(
            f'template `{self.name}` has no generation marks, and what it trains cannot be proven: {why}. '
            "Take a named template that fits the model, such as template='chatml' or 'llama3'."
        )


def _replies(messages: list[Message]) -> list[int]:
    return [i for i, m in enumerate(messages) if m['role'] in ('assistant', 'text')]


def _match_any(tags: tuple[str, ...], text: str, at: int) -> int | None:
    """Return how many characters an end tag, with space before it, takes at `at`."""
    gap = len(text[at:]) - len(text[at:].lstrip())
    for skip in (0, gap):
        for tag in tags:
            if text.startswith(tag, at + skip):
                return skip + len(tag)
    return None


def special_variables(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return `bos_token`, `eos_token` and so on as templates see them."""
    return {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
