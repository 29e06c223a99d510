"""A chat template bound to a tokenizer: conversation -> text, and the characters that are trained.

The trained span of an assistant message is its content and its stop token, nothing else. `{% generation %}` blocks mark
these spans. For a template without such blocks they are found by comparing prefixes (see `prefix_spans.py`).
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import TemplateError
from ..messages import TRAINABLE_ROLES, Message
from . import advice, reasoning_support
from .generation_blocks import block_fault, block_fault_with, without_trailing_whitespace
from .omissions import OMITTED_REASONING, first_omission
from .prefix_spans import SpanError, spans_from_prefixes
from .probes import WITH_REASONING, WITH_TOOL_CALL
from .rendering import JinjaTemplate, Span

_GENERATION = re.compile(r'\{%-?\s*generation\s*-?%\}')
_NO_TOOLS = re.compile('does not support (?:tools|several tool calls)')


@dataclass(frozen=True)
class ChatTemplate:
    """A template bound to a tokenizer's special tokens.

    Args:
        name: The name in the config.
        source: Jinja source.
        variables: The special tokens by name, such as eos_token.
        end_tokens: The added tokens of the tokenizer, longest first: texts that may end a turn.
        is_builtin: The source is a file of this package.
    """

    name: str
    source: str
    variables: dict[str, str]
    end_tokens: tuple[str, ...]
    is_builtin: bool = False

    @cached_property
    def has_generation_blocks(self) -> bool:
        """Whether the template itself marks what is trained."""
        return bool(_GENERATION.search(self.source))

    @cached_property
    def supports_reasoning(self) -> bool:
        """Whether it writes the `reasoning_content` of the last assistant message."""
        return reasoning_support.supports_reasoning(self.text)

    @cached_property
    def drops_earlier_reasoning(self) -> bool:
        """Whether it drops the reasoning of assistant messages before the last user message."""
        return reasoning_support.drops_earlier_reasoning(self.text)

    @cached_property
    def parses_think_tags(self) -> bool:
        """Whether it separates reasoning in <think> tags from the rest of the content."""
        return reasoning_support.parses_think_tags(self.text)

    def render(self, messages: list[Message], tools: list[dict] | None = None) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters of each assistant message with its stop token.

        Raises:
            TemplateError: The template refuses the conversation or leaves out a part of it, or a trained span cannot
                be determined.
        """
        if tools and 'tools' not in self.source:
            raise TemplateError(f'template `{self.name}` does not support tools; {self._advice_for_tools()}')
        if not self.has_generation_blocks:
            return self._render_by_prefixes(messages, tools)
        if not self.is_builtin:
            self._check_blocks_for(messages, tools)
        return self._render_blocks(messages, tools)

    def prompt(self, messages: list[Message], tools: list[dict] | None = None, **variables: Any) -> str:
        """Return the inference prompt: the text that a model continues with its response to `messages`.

        `variables` are extra template variables, such as enable_thinking.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        return self.text(messages, tools, add_generation_prompt=True, **variables)

    def text(
        self,
        messages: list[Message],
        tools: list[dict] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """Return the text of `messages`; a `RenderFunction`.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        try:
            return self._jinja.render(messages, tools, add_generation_prompt, **variables)
        except Exception as error:  # jinja2 and raise_exception() in templates use many classes
            raise self._refusal(error, messages) from error

    def check_generation_blocks(self) -> None:
        """Check that each block begins where the inference prompt ends, and contains the stop token.

        Raises:
            TemplateError: It does not, or the template refuses two exchanges.
        """
        self._raise_block_fault(block_fault(self._render_blocks, self.text, self.end_tokens))

    @cached_property
    def _jinja(self) -> JinjaTemplate:
        return JinjaTemplate(self.source, self.variables, self.is_builtin)

    @cached_property
    def _fault_with_tools(self) -> str | None:
        return block_fault_with(WITH_TOOL_CALL, self._render_blocks, self.text)

    @cached_property
    def _fault_with_reasoning(self) -> str | None:
        return block_fault_with(WITH_REASONING, self._render_blocks, self.text)

    def _check_blocks_for(self, messages: list[Message], tools: list[dict] | None) -> None:
        """Check the blocks with tools and with reasoning, if this conversation has them."""
        if tools or any(m['role'] == 'tool' or m.get('tool_calls') for m in messages):
            self._raise_block_fault(self._fault_with_tools)
        if any(m.get('reasoning_content') or m.get('thinking') for m in messages):
            self._raise_block_fault(self._fault_with_reasoning)

    def _raise_block_fault(self, fault: str | None) -> None:
        if fault:
            raise TemplateError(f'template `{self.name}` {fault} {self._most_similar()}')

    def _render_blocks(self, messages: list[Message], tools: list[dict] | None = None) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters of each `{% generation %}` block.

        Raises:
            TemplateError: The template refuses the conversation, leaves out a part of it, or has more or fewer blocks
                than there are assistant messages.
        """
        try:
            text, spans = self._jinja.render_with_spans(messages, tools)
        except Exception as error:  # jinja2 and raise_exception() in templates use many classes
            raise self._refusal(error, messages) from error
        if not self.is_builtin:  # the built-in templates have no whitespace there
            spans = [without_trailing_whitespace(text, span, self.end_tokens) for span in spans]
        expected = sum(m['role'] in TRAINABLE_ROLES for m in messages)
        if len(spans) != expected:
            raise TemplateError(
                f'template `{self.name}` has {len(spans)} {{% generation %}} blocks for {expected} assistant messages'
            )
        self._require_complete(messages, text)
        return text, spans

    def _render_by_prefixes(self, messages: list[Message], tools: list[dict] | None) -> tuple[str, list[Span]]:
        targets = [i for i, m in enumerate(messages) if m['role'] in TRAINABLE_ROLES]
        try:
            text, spans = spans_from_prefixes(self.text, self.end_tokens, messages, tools, targets)
        except SpanError as error:
            raise TemplateError(
                f'template `{self.name}` has no {{% generation %}} blocks, and the tokens to train cannot be '
                f'determined: {error}. {self._most_similar()}'
            ) from error
        self._require_complete(messages, text)
        return text, spans

    def _require_complete(self, messages: list[Message], text: str) -> None:
        omission = first_omission(messages, text)
        if omission == OMITTED_REASONING:
            raise TemplateError(f'template `{self.name}` drops {omission}; {advice.for_reasoning(self.end_tokens)}')
        if omission:
            raise TemplateError(f'template `{self.name}` drops {omission}. {self._most_similar()}')

    def _refusal(self, error: Exception, messages: list[Message]) -> TemplateError:
        """Return the error for a conversation that the template refuses, with advice if tools are not supported."""
        remedy = ''
        if self.is_builtin and _NO_TOOLS.search(str(error)):
            several = any(len(m.get('tool_calls') or ()) > 1 for m in messages)
            remedy = f'; {self._advice_for_tools(several)}'
        return TemplateError(f'template `{self.name}` refuses this conversation: {error}{remedy}')

    def _advice_for_tools(self, several_calls: bool = False) -> str:
        return advice.for_tools(self.name, self.end_tokens, several_calls)

    def _most_similar(self) -> str:
        return advice.most_similar(self.source, self.variables, self.end_tokens)
