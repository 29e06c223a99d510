"""Find the data set that the prompts of a data set part were written for."""

import ast
from collections.abc import Iterator
from pathlib import Path

from .presets import BASE

# The data set whose prompts ("Who are you?") fit any data set.
GENERIC = ['self_cognition']


def written_for(prompts: list[str], paths: list[str]) -> str | None:
    """Return the path of the data set whose part has exactly these `prompts`; None: no part has, or it is in `paths`.

    Args:
        prompts: `chat_samples.prompts` of a run.
        paths: The paths of its training data.
    """
    owners = [names for part, names in _parts() if part == list(prompts) and names != GENERIC]
    owned = [path for names in owners for path in names]
    return None if not owned or set(owned) & set(paths) else owned[0]


def _parts() -> Iterator[tuple[list[str], list[str]]]:
    """Yield (prompts, paths of training data) of each data set part."""
    for file in sorted((BASE / 'datasets').glob('*.py')):
        yield _prompts_and_paths(file)


def _prompts_and_paths(file: Path) -> tuple[list[str], list[str]]:
    sections = {
        target.id: node.value
        for node in ast.parse(file.read_text(encoding='utf-8')).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    prompts = list(_keywords(sections.get('chat_samples'), 'prompts'))
    return (prompts[0] if prompts else []), list(_keywords(sections.get('train_dataset'), 'path'))


def _keywords(section: ast.expr | None, name: str) -> Iterator:
    """Yield the literal values of the keyword `name`, at any depth of a section."""
    for node in ast.walk(section) if section is not None else ():
        if isinstance(node, ast.keyword) and node.arg == name:
            yield ast.literal_eval(node.value)
