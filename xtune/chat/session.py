"""A chat with a model: message history, generation settings, one response at a time."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TextStreamer

from ..data.chat_tokenizer import ChatTokenizer
from ..errors import DataError
from ..inference.generate import generate_ids
from ..messages import Message
from ..models.loading.folder_checks import refuse_ids_beyond
from ..templates.system_prompts import system_text


@dataclass
class ChatSettings:
    """Generation settings; `temperature` 0 is greedy decoding."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 0.9


@dataclass
class ChatSession:
    """A model and the messages so far."""

    llm: Any
    chat_tokenizer: ChatTokenizer
    stop_ids: list[int]
    settings: ChatSettings
    system: str | None = None
    history: list[Message] = field(default_factory=list)

    def ask(self, question: str, stream: bool = False) -> str:
        """Return the response to `question` and append both to the history; with `stream`, print tokens as generated.

        Raises:
            DataError: The question is not valid text, or the conversation exceeds the context length of the model.
            ModelError: The tokenizer produces ids outside the embedding matrix of the model.
        """
        try:
            question.encode('utf-8')
        except UnicodeEncodeError as error:
            raise DataError(
                f'character {error.start + 1} of the question is not valid UTF-8; enter it again'
            ) from error
        messages = [*self._system_message(), *self.history, {'role': 'user', 'content': question}]
        ids = torch.tensor([self.chat_tokenizer.prompt_ids(messages)])
        limit = getattr(self.llm.config, 'max_position_embeddings', None)
        if limit and ids.shape[1] >= limit:
            raise DataError(
                f'the conversation has {ids.shape[1]} tokens, the context length of the model is {limit}; '
                'use /undo or /reset'
            )
        # transformers ignores this setting in the config of BPE tokenizers, with a warning.
        decoding = dict(skip_special_tokens=True, clean_up_tokenization_spaces=False)
        streamer = TextStreamer(self.chat_tokenizer.tokenizer, skip_prompt=True, **decoding) if stream else None
        rows = self.llm.get_input_embeddings().weight.shape[0]
        refuse_ids_beyond(self.llm.config.name_or_path or 'the model', int(ids.max()), rows)
        new_ids = generate_ids(
            self.llm,
            ids.to(next(self.llm.parameters()).device),
            self.stop_ids,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            streamer=streamer,
        )
        response = self.chat_tokenizer.tokenizer.decode(self._without_stop(new_ids), **decoding).strip()
        self.history += [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': response}]
        return response

    def undo(self) -> str | None:
        """Remove the last question and response from the history; return the question."""
        if not self.history:
            return None
        question = self.history[-2]['content']
        del self.history[-2:]
        return question

    def reset(self) -> None:
        """Clear the history; the system message is kept."""
        self.history.clear()

    def _system_message(self) -> list[Message]:
        return [{'role': 'system', 'content': system_text(self.system)}] if self.system else []

    def _without_stop(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[:-1] if len(ids) and int(ids[-1]) in self.stop_ids else ids
