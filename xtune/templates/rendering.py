"""Render a chat template: messages -> text, and the characters inside its `{% generation %}` blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from transformers.utils.chat_template_utils import render_jinja_template

from ..messages import Message
from . import fast_render

Span = tuple[int, int]  # characters [start, end)
_PROBE = 'Is this text shown?'


class RenderFunction(Protocol):
    """Renders messages to text; `variables` are extra template variables, such as enable_thinking."""

    def __call__(
        self,
        messages: list[Message],
        tools: list[dict] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str: ...


@dataclass(frozen=True)
class JinjaTemplate:
    """The source of a chat template and its variables: the tokenizer's special tokens by name.

    `is_builtin`: the source is a file of this package, so it can be rendered by `fast_render`.
    """

    source: str
    variables: dict[str, str]
    is_builtin: bool = False

    @cached_property
    def needs_content_parts(self) -> bool:
        """Whether it accepts content only as a list of parts, as templates of some vision-language models do."""
        return not self.is_builtin and not self._shows_text_as(list) and self._shows_text_as(in_parts)

    def render(
        self, messages: list[Message], tools: list[dict] | None, add_generation_prompt: bool, **extra: Any
    ) -> str:
        """Return the text of `messages`. `extra` are further template variables.

        Raises:
            Exception: Of any class; the template refuses the conversation.
        """
        if self._can_use_fast_render(messages, tools, extra):
            return self._builtin(messages, add_generation_prompt)[0]
        return self._by_transformers(messages, tools, add_generation_prompt, extra, spans=False)[0]

    def render_with_spans(self, messages: list[Message], tools: list[dict] | None) -> tuple[str, list[Span]]:
        """Return the text of `messages` and the characters of each `{% generation %}` block.

        Raises:
            Exception: Of any class; the template refuses the conversation.
        """
        if self._can_use_fast_render(messages, tools, {}):
            return self._builtin(messages, False)
        return self._by_transformers(messages, tools, False, {}, spans=True)

    def _can_use_fast_render(self, messages: list[Message], tools: list[dict] | None, extra: dict) -> bool:
        return self.is_builtin and not extra and fast_render.supports(messages, tools)

    def _builtin(self, messages: list[Message], add_generation_prompt: bool) -> tuple[str, list[Span]]:
        text = fast_render.render(self.source, messages, add_generation_prompt, self.variables)
        return fast_render.split_markers(text)

    def _by_transformers(
        self, messages: list[Message], tools: list[dict] | None, add_generation_prompt: bool, extra: dict, spans: bool
    ) -> tuple[str, list[Span]]:
        plain = [{key: value for key, value in message.items() if key != 'train'} for message in messages]
        texts, all_spans = render_jinja_template(
            conversations=[in_parts(plain) if self.needs_content_parts else plain],
            tools=tools,
            chat_template=self.source,
            add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=spans,
            **self.variables | extra,
        )
        return texts[0], all_spans[0] if spans else []

    def _shows_text_as(self, convert: Callable[[list[dict]], list[dict]]) -> bool:
        """Return whether the rendered text contains the content of a message converted by `convert`."""
        try:
            messages = convert([dict(role='user', content=_PROBE)])
            texts, _ = render_jinja_template([messages], chat_template=self.source, **self.variables)
        except Exception:  # jinja2 and raise_exception() in templates use many classes
            return False
        return _PROBE in texts[0]


def in_parts(messages: list[dict]) -> list[dict]:
    """Return `messages` with each text content as a list of one part: [{'type': 'text', 'text': ...}]."""
    return [
        {**m, 'content': [{'type': 'text', 'text': m['content']}]} if isinstance(m.get('content'), str) else m
        for m in messages
    ]
