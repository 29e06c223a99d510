"""The files beside a model's weights that say how images, video and sound become its input.

Training on text changes none of them. A folder without them still answers to text; vLLM and AutoProcessor need them
for anything else.
"""

import shutil
from pathlib import Path

from ..models.folder import local_folder

NAMES = ('preprocessor_config.json', 'processor_config.json', 'video_preprocessor_config.json')
# Where older checkpoints keep the processor's chat template; that of the tokenizer goes into chat_template.jinja.
TEMPLATES = ('chat_template.json', 'chat_template.jinja')


def copy_processor_files(base: str, folder: Path) -> list[str]:
    """Copy the processor's files of `base`, a folder or hub name, to `folder`, as far as they are on this machine.

    Files that `folder` has already stay. So does its chat template, which is that of the training.

    Returns:
        The names of the files that were copied.
    """
    source = local_folder(base)
    if source is None:
        return []
    has_template = any((folder / name).is_file() for name in TEMPLATES)
    wanted = NAMES if has_template else (*NAMES, *TEMPLATES)
    found = [name for name in wanted if (source / name).is_file() and not (folder / name).exists()]
    for name in found:
        shutil.copyfile(source / name, folder / name)
    return found
