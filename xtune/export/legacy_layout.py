"""`xtune convert legacy`: a folder in a layout of 2023 -> one that transformers loads. The model is not built."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.legacy.recognise import VARIANTS, read_config
from ..models.loading.folder_checks import check_model_folder
from .output_folder import new_folder
from .split import parse_size


@dataclass(frozen=True)
class Converted:
    """What was written: variant, class of the model, number of weight files, and what the user should know."""

    variant: str
    model_class: str
    files: int
    notes: list[str]


def convert_legacy(source: str, target: Path, max_shard_size: str = '5GB', variant: str | None = None) -> Converted:
    """Write `source` to the new folder `target` in the layout of transformers.

    Args:
        source: Folder or hub name of a model in an old layout.
        target: A new folder.
        max_shard_size: Size of a weights file at most, such as '2GB'; about the memory that it takes.
        variant: Which layout it is, where config.json does not tell.

    Raises:
        ModelError: `source` has no old layout, or is damaged, ambiguous or not supported.
        ConfigError: `target` is not empty, or the size cannot be read.
    """
    limit = parse_size(max_shard_size)
    check_model_folder(source, allow_remote_code=False)
    path = legacy_folder(source)
    if path is None:
        kind = read_config(Path(source).expanduser()).get('model_type', 'unknown to transformers')
        raise ModelError(
            f'{source} is in none of the layouts of 2023 (model_type {", ".join(VARIANTS)}; its is {kind}): '
            'transformers loads it as it is, if at all'
        )
    from ..models.legacy.alibi_config import MODEL_TYPE
    from ..models.legacy.families import open_legacy
    from ..models.legacy.save import write_native

    with new_folder(target) as folder:
        legacy = open_legacy(path, variant)
        cls, count, has_tokenizer = write_native(legacy, folder, limit)
    notes = [] if has_tokenizer else [f'{source} has no tokenizer, so none was written']
    if legacy.config.model_type == MODEL_TYPE:
        notes.append('transformers has no class for it: write `import xtune` before from_pretrained')
    return Converted(legacy.variant, cls.__name__, count, notes)
