"""The files beside a model's weights that say how images, video and sound become its input.

Training on text changes none of them. A folder without them still answers to text; vLLM and AutoProcessor need them
for anything else.
"""

import shutil
from pathlib import Path

from ..models.legacy.recognise import read_json
from ..models.loading.folder_checks import local_folder
from ..utils.quiet import quiet

NAMES = ('preprocessor_config.json', 'processor_config.json', 'video_preprocessor_config.json')
# Where older checkpoints keep the processor's chat template; that of the tokenizer goes into chat_template.jinja.
TEMPLATES = ('chat_template.json', 'chat_template.jinja')


def copy_processor_files(base: str, folder: Path, revision: str | None = None) -> list[str]:
    """Copy the processor's files of `base`, a folder or hub name (at `revision`), to the model folder `folder`.

    Files that `folder` has already stay. So does its chat template, which is that of the training. If the model takes
    more than text and no file is found, a note says so.

    Returns:
        The names of the files that were copied.
    """
    has_template = any((folder / name).is_file() for name in TEMPLATES)
    wanted = NAMES if has_template else (*NAMES, *TEMPLATES)
    more_than_text = isinstance(read_json(folder / 'config.json').get('text_config'), dict)
    found = []
    for name in wanted:
        source = None if (folder / name).exists() else _file(base, name, more_than_text, revision)
        if source is not None:
            shutil.copyfile(source, folder / name)
            found.append(name)
    if more_than_text and not any((folder / name).is_file() for name in NAMES):
        print(f'note: {base} has none of {", ".join(NAMES)} here; without them the export takes text only')
    return found


def _file(base: str, name: str, fetch: bool, revision: str | None) -> Path | None:
    """Return a file of a folder or hub model; `fetch` says that it may be downloaded. None: there is none."""
    source = local_folder(base, revision)
    if source is not None and (source / name).is_file():
        return source / name
    if not fetch or Path(base).expanduser().is_dir():
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with quiet():
            return Path(hf_hub_download(base, name, revision=revision))
    except (OSError, ValueError, HfHubHTTPError):  # there is no such file, or no connection
        return None
