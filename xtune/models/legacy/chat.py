"""Detect chat models among 2023 remote-code checkpoints; their chat templates and stop tokens."""

from pathlib import Path

from ..loading.json_files import read_config, read_json

# The Jinja files; as a path, because the package `templates` is in a layer above this one.
TEMPLATES = Path(__file__).parents[2] / 'templates'
# variant -> chat template of its chat models, and their stop tokens besides eos.
CHAT_FORMATS = {
    'internlm': ('internlm_chat', ('<eoa>',)),
    'baichuan_7b': ('baichuan_chat', ('<reserved_102>',)),
    'baichuan_13b': ('baichuan_chat', ('<reserved_102>',)),
    'baichuan2_7b': ('baichuan2_chat', ('<reserved_106>',)),
    'baichuan2_13b': ('baichuan2_chat', ('<reserved_106>',)),
    'qwen': ('qwen_chat', ('<|im_end|>',)),
    'chatglm2': ('chatglm2', ()),
    'chatglm3': ('chatglm3', ('<|user|>', '<|observation|>')),
}


def chat_template(folder: Path, variant: str) -> str | None:
    """Return the chat template of a chat model; None for a base model."""
    if not is_chat(folder, variant):
        return None
    return (TEMPLATES / f'{CHAT_FORMATS[variant][0]}.jinja').read_text(encoding='utf-8')


def is_chat(folder: Path, variant: str) -> bool:
    """Return whether the folder's name, its config or its generation config identifies a chat model."""
    generation = read_json(folder / 'generation_config.json')
    names = [folder.resolve().name, str(read_config(folder).get('_name_or_path') or '')]
    parent = folder.resolve().parent.parent.name  # a hub snapshot is models--OWNER--NAME/snapshots/HASH
    text = ' '.join([*names, parent if parent.startswith('models--') else '']).lower()
    if variant.startswith('chatglm'):
        return 'base' not in text.replace('-', ' ').replace('_', ' ').split()
    return 'chat' in text or 'user_token_id' in generation or generation.get('chat_format') == 'chatml'
