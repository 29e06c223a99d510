"""`xtune convert legacy`: convert a 2023 remote-code checkpoint to the native layout, without building the model."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.legacy.variants import VARIANTS
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.json_files import read_config
from .output_folder import new_folder
from .shards import parse_size


@dataclass(frozen=True)
class Converted:
    """The result of a conversion: variant, name of the model class, number of weight files, notes for the user."""

    variant: str
    model_class: str
    files: int
    notes: list[str]


def convert_legacy(source: str, target: Path, max_shard_size: str = '5GB', variant: str | None = None) -> Converted:
    """Write `source` to the new folder `target` in the native layout of transformers.

    Args:
        source: Folder or hub name of a 2023 remote-code checkpoint.
        target: A new folder.
        max_shard_size: Maximum size of a weight file, such as '2GB'; memory use is about as much.
        variant: Its variant, if config.json is ambiguous.

    Raises:
        ModelError: `source` is not such a checkpoint, or is damaged, ambiguous or not supported.
        ConfigError: `target` is not empty, or the size cannot be parsed.
    """
    max_bytes = parse_size(max_shard_size)
    check_model_folder(source, allow_remote_code=False)
    path = legacy_folder(source)
    if path is None:
        model_type = read_config(Path(source).expanduser()).get('model_type', 'unknown to transformers')
        raise ModelError(
            f'{source} is not a 2023 remote-code checkpoint: its model_type is {model_type}, not one of '
            f'{", ".join(VARIANTS)}. transformers may load it without conversion'
        )
    from ..models.legacy.alibi_config import MODEL_TYPE
    from ..models.legacy.families import open_legacy
    from .legacy_writer import write_native

    with new_folder(target) as folder:
        legacy = open_legacy(path, variant)
        cls, count, has_tokenizer = write_native(legacy, folder, max_bytes)
    notes = [] if has_tokenizer else [f'{source} has no tokenizer, so none was written']
    if legacy.config.model_type == MODEL_TYPE:
        notes.append('transformers has no class for it: `import xtune` before from_pretrained')
    return Converted(legacy.variant, cls.__name__, count, notes)
