"""What was found out about each preset: a line of JSON while the tool runs, a row of docs/en/presets.md after it."""

import json
import platform
import re
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

STAGES = ('load', 'train', 'resume', 'convert', 'merge', 'chat')
SHORT = STAGES[:2]  # of presets that share model and method with one that ran all stages
LOADED = STAGES[:1]  # of presets whose method needs a GPU
GPU_ONLY = ('fp8_lora', 'qlora_paged_8bit')
NOT_RUN = 'not run'
_LIBRARIES = ('torch', 'transformers', 'peft', 'bitsandbytes', 'tokenizers')
_LONGEST = 240  # characters of a reason in the page


@dataclass(frozen=True)
class Result:
    """One preset: what it is made of, the stages it passed, and what stopped it; `alias` is the preset it equals."""

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
        """What it is made of."""
        return self.family, self.model, self.method, self.data, self.template

    @property
    def passed(self) -> bool:
        """Whether its stages passed, or it equals a preset that has a row of its own."""
        enough = (LOADED,) if self.method in GPU_ONLY else (STAGES, SHORT)
        return bool(self.alias) or (self.stages in enough and not self.reason)

    @property
    def status(self) -> str:
        """The last column of its row."""
        if self.alias:
            return f'same as `{self.alias}`'
        if self.passed:
            return 'all' if self.stages == STAGES else ', '.join(self.stages)
        reason = self.reason.replace('|', '\\|').replace('<', '&lt;')
        return f'{", ".join(self.stages) or "none"}; **{reason[:_LONGEST]}**'

    def row(self) -> str:
        """Return its line in the page."""
        cells = (f'`{self.name}`', self.model, self.method, self.data, self.template, self.status)
        return f'| {" | ".join(cells)} |'


def append(file: Path, result: Result) -> None:
    """Add a line to `file`."""
    with file.open('a', encoding='utf-8') as stream:
        stream.write(json.dumps(asdict(result), ensure_ascii=False) + '\n')


def read(folder: Path) -> dict[str, Result]:
    """Return the results of all shards in `folder`, by name."""
    lines = [line for file in sorted(folder.glob('results-*.jsonl')) for line in file.read_text('utf-8').splitlines()]
    known = {one.name for one in fields(Result)}
    found = [{k: v for k, v in json.loads(line).items() if k in known} for line in lines]
    return {one['name']: Result(**{**one, 'stages': tuple(one['stages'])}) for one in found}


def versions() -> str:
    """Return the versions that the page names."""
    python = '.'.join(platform.python_version_tuple()[:2])
    return ', '.join([f'Python {python}', *(f'{name} {version(name)}' for name in _LIBRARIES)])


def rows_of(page: str) -> dict[str, Result]:
    """Return the results that a page shows, by name; none if it was written with other versions."""
    if f'Run with {versions()}.' not in page:
        return {}
    found = {}
    for section in re.split(r'^### ', page, flags=re.M)[1:]:
        family = section.split('\n', 1)[0].strip()
        for line in re.findall(r'^\| `.*$', section, re.M):
            *cells, status = (cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1])
            name, parts = cells[0].strip('`'), cells[1:]
            found[name] = Result(name, family, *parts, **_parsed(status))
    return found


def _parsed(status: str) -> dict:
    if status == 'all':
        return dict(stages=STAGES)
    if status.startswith('same as'):
        return dict(alias=status.split('`')[1])
    stages, _, reason = status.partition('; ')
    reason = reason.strip('*').replace('\\|', '|').replace('&lt;', '<')
    return dict(stages=tuple(s for s in stages.split(', ') if s != 'none'), reason=reason)
