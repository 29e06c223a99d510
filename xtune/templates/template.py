"""A chat template: conversation -> text, and which characters of the text are trained.

The trained span of a reply is the reply and its end of turn, nothing else. Templates with `{% generation %}` marks say
so themselves. For a template without marks the span is proven (see `proof.py`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..errors import TemplateError
from ..messages import TRAINABLE_ROLES, Message
from . import fast_render
from .advice import closest, for_thoughts, for_tools
from .generation_marks import THOUGHTS, TOOLS, fault_with
from .span_proof import proven

_MARK = re.compile(r'\{%-?\s*generation\s*-?%\}')
Span = tuple[int, int]
_PROBE = 'Is this text shown?'


@dataclass(frozen=True)
class ChatTemplate:
    """A template bound to a tokenizer's special tokens.

    `end_tokens` are the added tokens of the tokenizer, longest first: the texts that may close a turn; `own` says that
    the source is a file of this package.
    """

    name: str
    source: str
    variables: dict[str, str]
    end_tokens: tuple[str, ...]
    own: bool = False

    @cached_property
    def has_marks(self) -> bool:
        """Whether the template itself says what is trained."""
        return bool(_MARK.search(self.source))

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it takes content as a list of parts only, as templates of some vision-language models do."""
        return not self.own and not _shows(self, list) and _shows(self, in_parts)

    @cached_property
    def takes_thoughts(self) -> bool:
        """Whether it writes the thought of a last reply that is given as `reasoning_content`."""
        reply = dict(role='assistant', content='4.', reasoning_content=_PROBE)
        try:
            return _PROBE in self.run([dict(role='user', content='What is 2+2?'), reply])
        except TemplateError:
            return False

    @cached_property
    def drops_thoughts(self) -> bool:
        """Whether it leaves out the thought of a reply before the last question."""
        return _PROBE not in self._earlier(content='4.', reasoning_content=_PROBE)

    @cached_property
    def reads_tags(self) -> bool:
        """Whether it tells a thought in tags from the text of a reply."""
        reply = f'<think>{_PROBE}</think>4.'
        return reply not in self._earlier(content=reply)

    def _earlier(self, **reply: str) -> str:
        """Return the text of a conversation with this reply before the last question; empty if it is refused."""
        question = dict(role='user', content='What is 2+2?')
        try:
            return self.prompt([question, dict(role='assistant', **reply), question])
        except TemplateError:
            return ''

    def render(self, messages: list[Message], tools: list[dict] | None = None) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters [start, end) of each reply with its end of turn.

        Raises:
            TemplateError: The template refuses the conversation, leaves something of it out, or no trained span can be
                proven.
        """
        if tools and 'tools' not in self.source:
            raise TemplateError(f'template `{self.name}` has no form for tools; {for_tools(self)}')
        replies = [i for i, m in enumerate(messages) if m['role'] in TRAINABLE_ROLES]
        if self.has_marks and not self.own:
            self._check_marks_with(messages, tools)
        if self.has_marks:
            return self.marked(messages, tools)
        text, spans = proven(self, messages, tools, replies)
        self._require_all(messages, text)
        return text, spans

    def marked(self, messages: list[Message], tools: list[dict] | None = None) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters of each reply, as the marks of the template say.

        Raises:
            TemplateError: The template refuses the conversation, leaves something of it out, or marks more or fewer
                replies than there are.
        """
        replies = sum(m['role'] in TRAINABLE_ROLES for m in messages)
        text, spans = self.run(messages, tools, marks=True)
        if not self.own:  # ours have no blanks there
            spans = [self._without_blanks(text, span) for span in spans]
        if len(spans) != replies:
            raise TemplateError(f'template `{self.name}` marks {len(spans)} spans for {replies} replies')
        self._require_all(messages, text)
        return text, spans

    def _check_marks_with(self, messages: list[Message], tools: list[dict] | None) -> None:
        """Raise if the marks stand wrong where there are tools, or thoughts, and this conversation has some."""
        calls = tools or any(m['role'] == 'tool' or m.get('tool_calls') for m in messages)
        thinks = any(m.get('reasoning_content') or m.get('thinking') for m in messages)
        fault = (calls and self._fault_with_tools) or (thinks and self._fault_with_thoughts)
        if fault:
            raise TemplateError(str(fault))

    @cached_property
    def _fault_with_tools(self) -> TemplateError | None:
        return fault_with(TOOLS, self)

    @cached_property
    def _fault_with_thoughts(self) -> TemplateError | None:
        return fault_with(THOUGHTS, self)

    def prompt(self, messages: list[Message], tools: list[dict] | None = None) -> str:
        """Return the text that a model continues with its reply to `messages`."""
        return self.run(messages, tools, prompt=True)

    def run(
        self,
        messages: list[Message],
        tools: list[dict] | None = None,
        prompt: bool = False,
        marks: bool = False,
        **variables: Any,
    ) -> Any:
        """Return the text of `messages`, and with `marks` the characters [start, end) of each marked part.

        Args:
            messages: The conversation.
            tools: JSON schemas of the tools on offer.
            prompt: Add the head of a reply that is to be generated.
            marks: Return (text, spans) instead of the text.
            variables: More variables for the template, such as enable_thinking.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        try:
            if self.own and not variables and fast_render.fits(messages, tools):
                text, spans = fast_render.without_marks(
                    fast_render.render(self.source, messages, prompt, self.variables)
                )
                return (text, spans) if marks else text
            plain = [{k: v for k, v in m.items() if k != 'train'} for m in messages]
            texts, spans = render_jinja_template(
                conversations=[in_parts(plain) if self.takes_parts else plain],
                tools=tools,
                chat_template=self.source,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self.variables | variables,
            )
        except Exception as error:  # jinja2 and raise_exception() in templates use many classes
            raise TemplateError(
                f'template `{self.name}` refuses this conversation: {error}{self._remedy(str(error), messages)}'
            ) from error
        return (texts[0], spans[0]) if marks else texts[0]

    def _remedy(self, error: str, messages: list[Message]) -> str:
        """Return the advice that follows an error of a named template without a form for tools."""
        if not self.own or 'no form for' not in error:
            return ''
        several = any(len(m.get('tool_calls') or ()) > 1 for m in messages)
        return f'; {for_tools(self, several)}'

    def _without_blanks(self, text: str, span: Span) -> Span:
        """Return `span` without the space behind its end of turn, which no model has to write."""
        start, end = span
        if not text[end - 1 : end].isspace():
            return span
        bare = text[start:end].rstrip()
        return (start, start + len(bare)) if bare.endswith(self.end_tokens) else span

    def _require_all(self, messages: list[Message], text: str) -> None:
        """Raise if a system or tool message, a tool call, or a thought is not in `text`: some templates drop them."""
        last = max((i for i, m in enumerate(messages) if m['role'] == 'user'), default=0)
        for index, message in enumerate(messages):
            wanted = [call['function']['name'] for call in message.get('tool_calls') or ()]
            if message['role'] in ('system', 'tool'):
                wanted.append(message['content'].strip())
            for part in wanted:
                if part not in text and json.dumps(part, ensure_ascii=False)[1:-1] not in text:
                    what = 'tool calls' if message['role'] == 'assistant' else f'{message["role"]} messages'
                    raise TemplateError(f'template `{self.name}` leaves out {what}. {closest(self)}')
            # Most formats have no place for thoughts before the last question: such replies must not be trained.
            thought = message.get('reasoning_content') or message.get('thinking') or ''
            if thought.strip() not in text and (index > last or message.get('train', True)):
                raise TemplateError(f'template `{self.name}` leaves out the thought of a reply; {for_thoughts(self)}')


def in_parts(messages: list[dict]) -> list[dict]:
    """Return `messages` with each text as a list of one part: [{'type': 'text', 'text': ...}]."""
    return [
        {**m, 'content': [{'type': 'text', 'text': m['content']}]} if isinstance(m.get('content'), str) else m
        for m in messages
    ]


def _shows(template: ChatTemplate, form: Callable[[list[dict]], list[dict]]) -> bool:
    """Tell whether a template shows the text of a message that is given in this form."""
    try:
        messages = form([dict(role='user', content=_PROBE)])
        texts, _ = render_jinja_template([messages], chat_template=template.source, **template.variables)
    except Exception:  # jinja2 and raise_exception() in templates use many classes
        return False
    return _PROBE in texts[0]


def special_variables(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return `bos_token`, `eos_token` and so on as templates see them."""
    return {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
