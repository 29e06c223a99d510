r"""Render conversations and tokenize them in batches: token ids, and the token spans of assistant messages.

    text    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n
    tokens  [.....................................................][.................][.]
    turns                                                            the response + its stop token

Special tokens come from the rendered text; the tokenizer adds none. Spans are decided by position, never by token
value, so pad == eos cannot mask a stop token.
"""

import json
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError
from ..messages import Conversation, Message, RowError
from ..templates.template import ChatTemplate, Span
from .reasoning import OPEN, normalize_history, require_rendered
from .segment_encoding import SegmentEncoder
from .special_tokens import SpecialTokens, is_escaped
from .token_span import token_span


@dataclass(frozen=True)
class RenderedConversation:
    """Text of a conversation.

    Attributes:
        text: The rendered text, with special-token text of the data escaped.
        spans: Character span [start, end) of each assistant message.
    """

    text: str
    spans: list[Span]


# Token ids [S], and the token span [start, end) of each assistant message.
TokenizedConversation = tuple[list[int], list[Span]]


class ChatTokenizer:
    """A tokenizer with a chat template. Tokenizes conversations for training and prompts for inference the same way.

    Args:
        tokenizer: Encodes the rendered text; it adds no special tokens.
        template: Renders a conversation and marks the assistant messages.
        control_tokens: How to treat special-token text in data: 'text', 'auto' (the same), 'parse' or 'error'.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, control_tokens: str = 'text'):
        self.tokenizer, self.template = tokenizer, template
        self.special_tokens = SpecialTokens(tokenizer, control_tokens)
        self._segments = SegmentEncoder(tokenizer)
        self._stable_spaces: dict[tuple[str, str], bool] = {}

    def identity(self) -> tuple:
        """Return everything the tokens of a conversation depend on."""
        backend = getattr(self.tokenizer, 'backend_tokenizer', None)
        vocabulary = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        mode = 'text' if self.special_tokens.mode == 'auto' else self.special_tokens.mode  # the same tokens
        return self.template.source, sorted(self.template.variables.items()), mode, vocabulary

    @cached_property
    def keeps_tags(self) -> bool:
        """Whether the template parses reasoning tags, and tags in data are not escaped as special tokens."""
        is_escaped_tag = self.special_tokens.mode != 'parse' and self.special_tokens.occurs_in(OPEN)
        return self.template.parses_think_tags and not is_escaped_tag

    def render(self, conversation: Conversation) -> RenderedConversation:
        """Return `conversation` as text.

        Raises:
            RowError: The template refuses it.
        """
        escaped = self.special_tokens.escape(conversation)
        try:
            rendered = RenderedConversation(*self.template.render(escaped.messages, escaped.tools))
        except TemplateError as error:
            raise RowError('refused by the chat template', str(error)) from error
        require_rendered(escaped.messages, rendered.text)
        return rendered

    def tokenize(self, conversations: list[RenderedConversation]) -> list[TokenizedConversation]:
        """Return token ids, and the token span of each assistant message, for each of `conversations`."""
        results: list[TokenizedConversation | None] = [None] * len(conversations)
        unescaped = [i for i, rendered in enumerate(conversations) if not is_escaped(rendered.text)]
        if self.tokenizer.is_fast and unescaped:
            backend = self.tokenizer.backend_tokenizer
            backend.encode_special_tokens = False  # the tokenizer remembers the value of the last call
            encodings = backend.encode_batch([conversations[i].text for i in unescaped], add_special_tokens=False)
            for i, encoding in zip(unescaped, encodings, strict=True):
                text, spans = conversations[i].text, conversations[i].spans
                turns = [self._splits_like_prompt(text, span[0]) and token_span(encoding, span, text) for span in spans]
                if all(turns):
                    results[i] = encoding.ids, turns
        # The others have escapes, no offsets, or a token across the start of an assistant message. At inference the
        # prompt is tokenized without the response, so here prompt and response are tokenized separately too.
        return [
            self._segments.encode(rendered.text, rendered.spans) if result is None else result
            for rendered, result in zip(conversations, results, strict=True)
        ]

    def prompt_ids(self, messages: list[Message], tools: list[dict] | None = None) -> list[int]:
        """Return the token ids of a prompt: `messages`, and the header of the assistant message to generate.

        Raises:
            TemplateError: The template refuses the conversation.
            RowError: There is special-token text, and `control_tokens` is 'error'.
        """
        if self.template.supports_reasoning:
            messages = normalize_history(messages, self.keeps_tags)
        escaped = self.special_tokens.escape(Conversation(messages, tools))
        text = self.template.prompt(escaped.messages, escaped.tools)
        [(ids, _)] = self.tokenize([RenderedConversation(text, self._earlier_responses(escaped, text))])
        return ids

    def _earlier_responses(self, conversation: Conversation, prompt: str) -> list[Span]:
        """Return the character spans of assistant messages in `prompt`; as in training, tokens do not cross them."""
        if not any(m['role'] == 'assistant' for m in conversation.messages):
            return []
        messages = [{**m, 'train': False} if m['role'] == 'assistant' else m for m in conversation.messages]
        try:
            text, spans = self.template.render([*messages, {'role': 'assistant', 'content': '.'}], conversation.tools)
        except TemplateError:  # a template for inference need not support training
            return []
        return spans[:-1] if text.startswith(prompt) else []

    def _splits_like_prompt(self, text: str, start: int) -> bool:
        """Tell whether the whitespace before a response is tokenized as at the end of a prompt."""
        before = text[max(start - 16, 0) : start]
        width = len(before) - len(before.rstrip())
        if width < 2:
            return True
        key = before[-width - 1 :], text[start]
        if key not in self._stable_spaces:
            prompt_only = self._segments.ids(key[0])
            self._stable_spaces[key] = self._segments.ids(''.join(key))[: len(prompt_only)] == prompt_only
        return self._stable_spaces[key]
