"""Copy a multimodal base's processor files, which configure the preprocessing of images, video and audio.

Training on text does not change them. Without them a model still accepts text; vLLM and AutoProcessor need them for
other inputs.
"""

import shutil
from pathlib import Path

from ..models.loading.folder_checks import local_folder
from ..models.loading.json_files import read_json
from ..utils.quiet import quiet

NAMES = ('preprocessor_config.json', 'processor_config.json', 'video_preprocessor_config.json')
# Files of older checkpoints with the processor's chat template; the tokenizer's is in chat_template.jinja.
TEMPLATES = ('chat_template.json', 'chat_template.jinja')


def copy_processor_files(base: str, folder: Path, revision: str | None = None) -> list[str]:
    """Copy the processor files of `base`, a folder or hub name (at `revision`), to the model folder `folder`.

    Existing files of `folder` are kept, including the chat template of the training. Print a note if the model is
    multimodal and there are no such files.

    Returns:
        The names of the copied files.
    """
    has_template = any((folder / name).is_file() for name in TEMPLATES)
    names = NAMES if has_template else (*NAMES, *TEMPLATES)
    is_multimodal = isinstance(read_json(folder / 'config.json').get('text_config'), dict)
    copied = []
    for name in names:
        source = None if (folder / name).exists() else _find_file(base, name, is_multimodal, revision)
        if source is not None:
            shutil.copyfile(source, folder / name)
            copied.append(name)
    if is_multimodal and not any((folder / name).is_file() for name in NAMES):
        print(f'note: {base} has none of {", ".join(NAMES)} here; without them the export accepts only text')
    return copied


def _find_file(base: str, name: str, download: bool, revision: str | None) -> Path | None:
    """Return the path of a file of a folder or hub model, downloaded if allowed; None if there is no such file."""
    source = local_folder(base, revision)
    if source is not None and (source / name).is_file():
        return source / name
    if not download or Path(base).expanduser().is_dir():
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with quiet():
            return Path(hf_hub_download(base, name, revision=revision))
    except (OSError, ValueError, HfHubHTTPError):  # no such file, or no connection
        return None
