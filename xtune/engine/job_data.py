"""The data of a job."""

from ..config.wire import Job
from ..data.build import build_data
from ..data.rank_shard import SINGLE_RANK, RankShard
from ..data.resolve_map_fn import check_map_fns
from ..data.sections import DataSections
from ..data.training_data import TrainingData
from ..models.loading.tokenizer import load_tokenizer


def build_job_data(job: Job, shard: RankShard = SINGLE_RANK) -> TrainingData:
    """Return the data of `job`; `shard` is the part of each step that this rank computes.

    Raises:
        DataError, TemplateError, ModelError, ConfigError: The config or the data must be changed; raised before the
            model is loaded.
    """
    check_map_fns(job.sources)
    tokenizer = load_tokenizer(job.values.base_model, job.load_tokenizer, job.load_llm.keywords.get('variant'))
    return build_data(tokenizer, data_sections(job), job.chat_samples, shard)


def data_sections(job: Job) -> DataSections:
    """Return the sections of `job` that its data depend on."""
    return DataSections(
        values=job.values, data=job.data, schedule=job.schedule, train=job.train_sources, val=job.val_sources
    )
