"""The result of each preset: first a line of a JSON lines file, then a row of docs/en/presets.md."""

import json
import platform
import re
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

STAGES = ('load', 'train', 'resume', 'convert', 'merge', 'chat')
LOAD_TRAIN = STAGES[:2]  # for presets whose model and method another preset covers with all stages
LOAD_ONLY = STAGES[:1]  # for presets whose method needs a GPU
GPU_ONLY = ('fp8_lora', 'qlora_paged_8bit')
NOT_RUN = 'not run'
_LIBRARIES = ('torch', 'transformers', 'peft', 'bitsandbytes', 'tokenizers')
_MAX_REASON = 240  # characters of a reason on the page


@dataclass(frozen=True)
class Result:
    """A preset: its parts, the stages that passed, and the reason of a failure; `alias` is an identical preset."""

    name: str
    family: str
    model: str
    method: str
    data: str
    template: str
    stages: tuple[str, ...] = ()
    reason: str = ''
    alias: str = ''

    @property
    def parts(self) -> tuple[str, ...]:
        """Family, model, method, data set and template."""
        return self.family, self.model, self.method, self.data, self.template

    @property
    def passed(self) -> bool:
        """Whether all required stages passed, or the preset is an alias."""
        required = (LOAD_ONLY,) if self.method in GPU_ONLY else (STAGES, LOAD_TRAIN)
        return bool(self.alias) or (self.stages in required and not self.reason)

    @property
    def status(self) -> str:
        """The text of the column `passed`."""
        if self.alias:
            return f'same as `{self.alias}`'
        if self.passed:
            return 'all' if self.stages == STAGES else ', '.join(self.stages)
        reason = self.reason.replace('|', '\\|').replace('<', '&lt;')
        return f'{", ".join(self.stages) or "none"}; **{reason[:_MAX_REASON]}**'

    def row(self) -> str:
        """Return the row of the page."""
        cells = (f'`{self.name}`', self.model, self.method, self.data, self.template, self.status)
        return f'| {" | ".join(cells)} |'


def append(file: Path, result: Result) -> None:
    """Append `result` to `file` as a line of JSON."""
    with file.open('a', encoding='utf-8') as stream:
        stream.write(json.dumps(asdict(result), ensure_ascii=False) + '\n')


def read(folder: Path) -> dict[str, Result]:
    """Return the results of all shards in `folder`, by name."""
    lines = [line for file in sorted(folder.glob('results-*.jsonl')) for line in file.read_text('utf-8').splitlines()]
    names = {field.name for field in fields(Result)}
    records = [{k: v for k, v in json.loads(line).items() if k in names} for line in lines]
    return {record['name']: Result(**{**record, 'stages': tuple(record['stages'])}) for record in records}


def versions() -> str:
    """Return the versions of Python and of the libraries, as text."""
    python = '.'.join(platform.python_version_tuple()[:2])
    return ', '.join([f'Python {python}', *(f'{name} {version(name)}' for name in _LIBRARIES)])


def rows_of(page: str) -> dict[str, Result]:
    """Return the results on a page, by name; an empty dict if it was written with other versions."""
    if f'Run with {versions()}.' not in page:
        return {}
    results = {}
    for section in re.split(r'^### ', page, flags=re.M)[1:]:
        family = section.split('\n', 1)[0].strip()
        for line in re.findall(r'^\| `.*$', section, re.M):
            *cells, status = (cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1])
            name, parts = cells[0].strip('`'), cells[1:]
            results[name] = Result(name, family, *parts, **_parse_status(status))
    return results


def _parse_status(status: str) -> dict:
    """Return the fields of `Result` that `status` was written from."""
    if status == 'all':
        return dict(stages=STAGES)
    if status.startswith('same as'):
        return dict(alias=status.split('`')[1])
    stages, _, reason = status.partition('; ')
    reason = reason.strip('*').replace('\\|', '|').replace('&lt;', '<')
    return dict(stages=tuple(s for s in stages.split(', ') if s != 'none'), reason=reason)
