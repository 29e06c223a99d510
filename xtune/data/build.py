"""From a wired job to its data: tokenizer and template checked, rows tokenised, the order planned.

Nothing here loads the model, so a broken data file is reported within seconds.
"""

from dataclasses import dataclass

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..config.loader_keys import check_tokenizer_keys
from ..config.sections import Source
from ..config.wire import Job
from ..errors import ConfigError, DataError, ModelError
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import tokenizer_error
from ..models.loading.folder_checks import check_model_folder, check_vocabulary
from ..models.loading.processor_template import with_processor_template
from ..templates.resolve import resolve
from ..templates.system_prompts import system_text
from ..templates.template import ChatTemplate
from ..utils.quiet import quiet
from .batch_schedule import BatchSchedule
from .encoders import Encoders
from .mapping import check_map_fns
from .mixing import mixed
from .packing import Sequences, pack
from .prepare import prepare
from .report import Report
from .sources import files_of
from .split import Split
from .steps import WHOLE, PlannedSteps, Share, StreamedSteps
from .stop_tokens import stop_ids
from .store import JoinedStore
from .streaming import streamed
from .tokenise import Tokeniser


@dataclass
class TrainingData:
    """Everything the model will see, and how to talk to it afterwards. `train` of a stream is its first window."""

    tokeniser: Tokeniser
    stop_ids: list[int]
    train: Split
    val: Split | None
    steps: PlannedSteps | StreamedSteps
    max_length: int

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        return self.tokeniser.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The template in use."""
        return self.tokeniser.template

    @property
    def pad_id(self) -> int:
        """Id that fills rows up; its value has no effect on the loss."""
        return self.steps.pad_id

    @property
    def efficiency(self) -> float:
        """Share of the places in full-length sequences that hold a token."""
        return self.train.tokens / (len(self.train.sequences) * self.max_length)


def load_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the base model.

    Raises:
        ModelError: It cannot be loaded.
        ConfigError: A key of the section `tokenizer` has no effect.
    """
    name = job.values.base_model
    check_model_folder(
        name, weights=False, allow_remote_code=bool(job.load_tokenizer.keywords.get('trust_remote_code'))
    )
    try:
        with quiet():
            tokenizer = with_processor_template(_load_tokenizer(job, name), name)
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise tokenizer_error(name, error) from error
    check_tokenizer_keys(job.load_tokenizer.keywords, tokenizer)
    check_vocabulary(name, max(tokenizer.get_vocab().values(), default=0))
    return tokenizer


def _load_tokenizer(job: Job, name: str) -> PreTrainedTokenizerBase:
    given = job.load_tokenizer.keywords
    folder = legacy_folder(name, weights=False, revision=given.get('revision'))
    if folder is None or job.load_tokenizer.func != AutoTokenizer.from_pretrained:
        return job.load_tokenizer()
    from ..models.legacy.tokenizers import legacy_tokenizer

    return legacy_tokenizer(folder, job.load_llm.keywords.get('variant'), **given)


def build_data(job: Job, share: Share = WHOLE) -> TrainingData:
    """Return the data of `job`, and of its steps the `share` of this device.

    Raises:
        DataError, TemplateError, ModelError: What the user must mend, before the model is loaded.
    """
    values, schedule = job.values, job.schedule
    check_map_fns(job.sources)
    tokenizer = load_tokenizer(job)
    tokeniser = Tokeniser(tokenizer, resolve(values.template, tokenizer), values.control_tokens)
    stops = stop_ids(tokeniser)
    _try_chat_samples(job, tokeniser)
    encoders = Encoders(tokeniser, values.max_length, values.overlong, values.train_on)
    pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    if job.data.streaming:
        val = _validation(job, encoders)
        train, steps = streamed(job, encoders, pad_id, share)
        return TrainingData(tokeniser, stops, train, val, steps, values.max_length)
    train, val = _splits(job, encoders)
    settings = (schedule.batch_size, schedule.accumulate, values.seed, job.data.longest_first, share.of)
    plan = BatchSchedule(train.sequences, *settings)
    count = plan.steps_per_epoch * schedule.max_epochs
    steps = PlannedSteps(train.store, train.store.content, plan, min(count, schedule.max_steps or count), pad_id, share)
    return TrainingData(tokeniser, stops, train, val, steps, values.max_length)


def _splits(job: Job, encoders: Encoders) -> tuple[Split, Split | None]:
    """Return training and validation data; rows are held out before sources are mixed."""
    seed = job.values.seed
    store, reports = _prepared(job.train_sources, job, encoders)
    kept, val = np.ones(len(store), dtype=bool), _validation(job, encoders)
    if val is None and job.val_sources is not None:
        kept = ~_held_out(store, job.val_sources, seed)
        val = Split(store, _packed(store, np.flatnonzero(~kept), job), [], [])
    left = [int(kept[start:end].sum()) for start, end in zip(store.offsets, store.offsets[1:], strict=False)]
    weights = [source.weight for source in job.train_sources]
    if any(weights) and 0 in left:
        raise DataError(f'val_dataset={job.val_sources} leaves nothing of {job.train_sources[left.index(0)].path}')
    order, used = mixed(left, weights if any(weights) else None, seed)
    return Split(store, _packed(store, np.flatnonzero(kept)[order], job), reports, used), val


def _validation(job: Job, encoders: Encoders) -> Split | None:
    """Return validation data that has sources of its own."""
    if not isinstance(job.val_sources, tuple):
        return None
    store, reports = _prepared(job.val_sources, job, encoders)
    return Split(store, _packed(store, np.arange(len(store)), job), reports, [])


def _prepared(sources: tuple[Source, ...], job: Job, encoders: Encoders) -> tuple[JoinedStore, list[Report]]:
    settings = job.data.num_proc, job.data.max_bad_rows, job.data.strict, files_of(job.sources)
    pairs = [prepare(source, encoders.of(source), *settings) for source in sources]
    return JoinedStore([store for store, _ in pairs]), [report for _, report in pairs]


def _try_chat_samples(job: Job, tokeniser: Tokeniser) -> None:
    """Render the prompts now: one that the template refuses should not end the run hundreds of steps later."""
    samples = job.chat_samples
    head = [{'role': 'system', 'content': system_text(samples.system)}] if samples.system else []
    for prompt in samples.prompts if samples.every_steps else ():
        if not isinstance(prompt, str):
            raise ConfigError(f'chat_samples.prompts holds {prompt!r}; a prompt is a string')
        tokeniser.prompt_ids([*head, {'role': 'user', 'content': prompt}])


def _packed(store: JoinedStore, indices: np.ndarray, job: Job) -> Sequences:
    return pack(job.values.packing, store.lengths, indices, job.values.max_length, job.values.seed)


def _held_out(store: JoinedStore, amount: float, seed: int) -> np.ndarray:
    """Return which samples [N] are held out; all samples of a row stay on one side."""
    rows, which = np.unique(store.rows(), return_inverse=True)
    count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
    if count >= len(rows):
        raise DataError(f'val_dataset={amount} would hold out {count} of {len(rows)} rows and leave none to train on')
    held = np.zeros(len(rows), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(rows))[:count]] = True
    return held[which]
