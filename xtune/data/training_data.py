"""The data of a run."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..templates.template import ChatTemplate
from .chat_tokenizer import ChatTokenizer
from .split import Split
from .steps import ScheduledSteps, StreamedSteps


@dataclass(kw_only=True)
class TrainingData:
    """The data of a run, and the tokenizer and stop tokens for inference.

    Attributes:
        chat_tokenizer: The tokenizer with the chat template.
        stop_ids: Token ids at which generation stops.
        train: Training data; of a stream, its first window.
        val: Validation data.
        steps: The optimizer steps of the run.
        max_length: Tokens per sequence.
    """

    chat_tokenizer: ChatTokenizer
    stop_ids: list[int]
    train: Split
    val: Split | None
    steps: ScheduledSteps | StreamedSteps
    max_length: int

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the base model."""
        return self.chat_tokenizer.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The chat template."""
        return self.chat_tokenizer.template

    @property
    def pad_id(self) -> int:
        """Token id used for padding; it does not affect the loss."""
        return self.steps.pad_id

    @property
    def efficiency(self) -> float:
        """Share of tokens that are not padding, if every sequence is padded to `max_length`."""
        return self.train.tokens / (len(self.train.sequences) * self.max_length)
