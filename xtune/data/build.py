"""From a wired job to its data: tokenizer and template checked, rows tokenised, the order planned.

Nothing here loads the model, so a broken data file is reported within seconds.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..config.sections import Source
from ..config.wire import Job
from ..errors import ConfigError, DataError, ModelError
from ..models.folder import check_model_folder
from ..models.quiet import quiet
from ..templates.resolve import resolve
from ..templates.template import ChatTemplate
from .encode import Encoder
from .packing import Plan, pack_fit
from .prepare import prepare
from .report import Report
from .stops import stop_ids
from .store import TokenStore


@dataclass
class Split:
    """Samples of one purpose, as sequences of sample indices."""

    store: TokenStore
    sequences: list[list[int]]

    @cached_property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return int(sum(self.store.lengths[i] for sequence in self.sequences for i in sequence))

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(map(len, self.sequences))


@dataclass
class TrainingData:
    """Everything the model will see, and how to talk to it afterwards."""

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    stop_ids: list[int]
    train: Split
    val: Split | None
    report: Report
    val_report: Report | None
    plan: Plan
    total_steps: int
    max_length: int

    @property
    def pad_id(self) -> int:
        """Id that fills rows up; its value has no effect on the loss."""
        return next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)

    @property
    def efficiency(self) -> float:
        """Share of the places in full-length sequences that hold a token."""
        return self.train.tokens / (len(self.train.sequences) * self.max_length)


def load_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the base model.

    Raises:
        ModelError: It cannot be loaded.
    """
    check_model_folder(job.values.base_model, weights=False)
    try:
        with quiet():
            return job.load_tokenizer()
    except (OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f'the tokenizer of `{job.values.base_model}` cannot be loaded: {first}\n'
            'Without a connection, set base_model to a local folder.'
        ) from error


def build_data(job: Job) -> TrainingData:
    """Return the data of `job`.

    Raises:
        DataError, TemplateError, ModelError: What the user must mend, before the model is loaded.
    """
    values, schedule = job.values, job.schedule
    tokenizer = load_tokenizer(job)
    template = resolve(values.template, tokenizer)
    stops = stop_ids(tokenizer, template)
    _try_chat_samples(job, template)
    encoder = Encoder(tokenizer, template, values.max_length, values.overlong)
    store, report = prepare(job.train_source, encoder, job.data.num_proc, job.data.max_bad_rows)
    train_indices, val, val_report = np.arange(len(store)), None, None
    if isinstance(job.val_source, Source):
        val_store, val_report = prepare(job.val_source, encoder, job.data.num_proc, job.data.max_bad_rows)
        val = Split(val_store, _sequences(val_store, np.arange(len(val_store)), job))
    elif job.val_source is not None:
        train_indices, val_indices = _hold_out(store, job.val_source, values.seed)
        val = Split(store, _sequences(store, val_indices, job))
    train = Split(store, _sequences(store, train_indices, job))
    plan = Plan(train.sequences, schedule.batch_size, schedule.accumulate, values.seed)
    steps = plan.steps_per_epoch * schedule.max_epochs
    total = min(steps, schedule.max_steps or steps)
    return TrainingData(tokenizer, template, stops, train, val, report, val_report, plan, total, values.max_length)


def _try_chat_samples(job: Job, template: ChatTemplate) -> None:
    """Render the prompts now: one that the template refuses should not end the run hundreds of steps later."""
    samples = job.chat_samples
    head = [{'role': 'system', 'content': samples.system}] if samples.system else []
    for prompt in samples.prompts if samples.every_steps else ():
        if not isinstance(prompt, str):
            raise ConfigError(f'chat_samples.prompts holds {prompt!r}; a prompt is a string')
        template.prompt([*head, {'role': 'user', 'content': prompt}])


def _sequences(store: TokenStore, indices: np.ndarray, job: Job) -> list[list[int]]:
    if not job.values.pack:
        return [[int(i)] for i in indices]
    return pack_fit(store.lengths, indices, job.values.max_length, job.values.seed)


def _hold_out(store: TokenStore, amount: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, validation) sample indices; all samples of a row stay on one side."""
    rows, which = np.unique(store.rows(), return_inverse=True)
    count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
    if count >= len(rows):
        raise DataError(f'val_dataset={amount} would hold out {count} of {len(rows)} rows and leave none to train on')
    held = np.zeros(len(rows), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(rows))[:count]] = True
    return np.flatnonzero(~held[which]), np.flatnonzero(held[which])
