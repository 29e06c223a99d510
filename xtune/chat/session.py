"""A conversation with a model: its messages, its settings, and one reply at a time."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TextStreamer

from ..data.tokenise import Tokeniser
from ..errors import DataError
from ..inference.generate import generate_ids
from ..messages import Message
from ..models.loading.folder_checks import refuse_ids_beyond
from ..templates.system_prompts import system_text


@dataclass
class ChatSettings:
    """How replies are generated: temperature 0 always takes the likeliest token."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 0.9


@dataclass
class ChatSession:
    """Messages so far, and the model that continues them."""

    llm: Any
    tokeniser: Tokeniser
    stop_ids: list[int]
    settings: ChatSettings
    system: str | None = None
    history: list[Message] = field(default_factory=list)

    def ask(self, question: str, stream: bool = False) -> str:
        """Return the reply to `question` and remember both; with `stream`, print it as it comes.

        Raises:
            DataError: The question is no valid text, or the conversation no longer fits the model.
            ModelError: The tokenizer gives ids that the model has no rows for.
        """
        try:
            question.encode('utf-8')
        except UnicodeEncodeError as error:
            raise DataError(f'character {error.start + 1} of the question is no valid UTF-8; type it again') from error
        messages = [*self._head(), *self.history, {'role': 'user', 'content': question}]
        ids = torch.tensor([self.tokeniser.prompt_ids(messages)])
        limit = getattr(self.llm.config, 'max_position_embeddings', None)
        if limit and ids.shape[1] >= limit:
            raise DataError(f'the conversation has {ids.shape[1]} tokens, the model takes {limit}; use /undo or /reset')
        # Of BPE tokenizers transformers ignores this setting of the tokenizer, and warns that it does.
        decoding = dict(skip_special_tokens=True, clean_up_tokenization_spaces=False)
        streamer = TextStreamer(self.tokeniser.tokenizer, skip_prompt=True, **decoding) if stream else None
        rows = self.llm.get_input_embeddings().weight.shape[0]
        refuse_ids_beyond(self.llm.config.name_or_path or 'the model', int(ids.max()), rows)
        new = generate_ids(
            self.llm,
            ids.to(next(self.llm.parameters()).device),
            self.stop_ids,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            streamer=streamer,
        )
        reply = self.tokeniser.tokenizer.decode(self._without_stop(new), **decoding).strip()
        self.history += [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]
        return reply

    def undo(self) -> str | None:
        """Forget the last exchange and return its question."""
        if not self.history:
            return None
        question = self.history[-2]['content']
        del self.history[-2:]
        return question

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.history.clear()

    def _head(self) -> list[Message]:
        return [{'role': 'system', 'content': system_text(self.system)}] if self.system else []

    def _without_stop(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[:-1] if len(ids) and int(ids[-1]) in self.stop_ids else ids
