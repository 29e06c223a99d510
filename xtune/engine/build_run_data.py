"""The data of a run."""

from ..config.sections import ChatSamples
from ..config.specs import DataSpec, ModelSpec
from ..data.build import build_data
from ..data.rank_shard import SINGLE_RANK, RankShard
from ..data.resolve_map_fn import check_map_fns
from ..data.training_data import TrainingData
from ..models.loading.tokenizer import load_tokenizer


def build_run_data(
    model: ModelSpec, spec: DataSpec, chat_samples: ChatSamples, shard: RankShard = SINGLE_RANK
) -> TrainingData:
    """Return the data that `spec` describes, with the tokenizer of `model`.

    Args:
        model: The model of the run.
        spec: Its data.
        chat_samples: The prompts that it answers while it trains; they are rendered with the same chat template.
        shard: The part of each step that this rank computes.

    Raises:
        DataError, TemplateError, ModelError, ConfigError: The config or the data must be changed; raised before the
            model is loaded.
    """
    check_map_fns(spec.sources)
    tokenizer = load_tokenizer(model.base_model, model.load_tokenizer, model.load_llm.keywords.get('variant'))
    return build_data(tokenizer, spec, chat_samples, shard)
