"""The models of the presets and their rules, read from configs/models.tsv and configs/model_rules.tsv."""

import csv
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from .load import parse_options
from .paths import ROOT

MODELS = ROOT / 'models.tsv'
RULES = ROOT / 'model_rules.tsv'


@dataclass(frozen=True)
class Model:
    """A row of models.tsv.

    Args:
        name: Name of the model part, and the beginning of its presets' names.
        family: Heading under which `xtune list-cfg` shows its presets.
        base_model: Hub name.
        chat_template: 'auto' or a named template.
        billions: Parameters, in billions.
        context_length: Tokens that the model was trained on, at most.
        attention: Value of llm.attn_implementation.
        eos: End-of-sequence token, where the tokenizer files name none; else empty.
        bot_name: The name that MOSS conversations teach; empty: that of the data set part.
        title: Name in sentences.
        presets: Presets that `xtune list-cfg` shows: METHOD_DATASET_eEPOCHS, or @SET.
        note: What a user must know, in sentences.
    """

    name: str
    family: str
    base_model: str
    chat_template: str
    billions: str
    context_length: str
    attention: str
    eos: str
    bot_name: str
    title: str
    presets: str
    note: str

    @property
    def is_mixture_of_experts(self) -> bool:
        """Whether nearly all weights are experts, which are no linear layers."""
        return 'Mixture of experts' in self.note


@dataclass(frozen=True)
class Rule:
    """A row of model_rules.tsv: options that the presets of a model set.

    Args:
        model: Name of the model.
        methods: Methods that it holds for; a glob.
        datasets: Data sets that it holds for; a glob.
        options: Options and values as --cfg-options takes them, separated by semicolons.
        reason: A sentence for the preset's docstring, or empty.
    """

    model: str
    methods: str
    datasets: str
    options: str
    reason: str

    def fits(self, method: str, dataset: str) -> bool:
        """Return whether the rule holds for a preset of this method and data set."""
        return fnmatchcase(method, self.methods) and fnmatchcase(dataset, self.datasets)

    @property
    def values(self) -> dict[str, Any]:
        """The options as a dict of dotted names and values."""
        return parse_options([option.strip() for option in self.options.split(';')])


@cache
def models() -> dict[str, Model]:
    """Return the models of models.tsv by name, in the order of the table."""
    return {row['name']: Model(**row) for row in _rows(MODELS, Model)}


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rows of model_rules.tsv."""
    return tuple(Rule(**row) for row in _rows(RULES, Rule))


def _rows(path: Path, row: type) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))
    names = [field.name for field in fields(row)]
    for number, values in enumerate(rows, 2):
        assert list(values) == names and None not in values.values(), f'{path.name}:{number}: columns are {names}'
    return rows
