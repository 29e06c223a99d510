"""The runs that are planned and then done: their models, rows and configs."""

from dataclasses import dataclass, replace
from pathlib import Path

from common.configs import flat, shared_options
from common.material import make_rows

STEPS = 6
WIDE = dict(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
)
TINY = WIDE | dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2)
TINY |= dict(num_hidden_layers=3)


@dataclass(frozen=True)
class Case:
    """A run: its method, vocabulary in thousands, micro-batch, tokens of a row, what is recomputed."""

    method: str
    vocabulary: int
    batch: int
    length: int
    recomputed: str | int
    accumulate: int = 2
    pack: bool = False
    compile: bool = True

    @property
    def name(self) -> str:
        """What the table calls it."""
        more = ' packed' * self.pack + ' not compiled' * (not self.compile)
        more += ' no accumulation' * (self.accumulate == 1)
        return f'{self.method} {self.vocabulary}k {self.batch} x {self.length} {self.recomputed}{more}'


CASES = [
    Case('lora', 32, 4, 2048, 'all'),
    Case('lora', 32, 4, 2048, 'none'),
    Case('lora', 32, 4, 2048, 8),
    Case('lora', 32, 8, 2048, 'offload'),
    Case('qlora', 128, 4, 2048, 'none'),
    Case('fp8_lora', 128, 4, 2048, 'all'),
    Case('lora', 128, 2, 2048, 'auto', pack=True),
    Case('full', 32, 2, 1024, 'none', accumulate=1, compile=False),
]


def chosen(numbers: list[int] | None, tiny: bool) -> list[Case]:
    """Return the runs with these numbers (None: all); `tiny` ones are short, and none has a base in float8, which
    needs a GPU."""
    found = CASES if numbers is None else [CASES[number] for number in numbers]
    if not tiny:
        return found
    short = [replace(case, batch=2, length=128) for case in found if case.method != 'fp8_lora']
    return [replace(case, recomputed=2) if case.recomputed == 8 else case for case in short]


def model_of(case: Case, folder: Path) -> Path:
    """Return the folder of the model of `case`."""
    return folder / f'model_{case.vocabulary}'


def config(case: Case, folder: Path) -> str:
    """Return the config of a run, in which every row is full and nothing is saved."""
    rows = rows_of(case, folder)
    options = shared_options(model_of(case, folder), rows, case.length, case.batch, STEPS)
    options |= {
        'pack': case.pack,
        'activation_checkpointing': case.recomputed,
        'schedule.gradient_accumulation_steps': case.accumulate,
        'speed.compile': case.compile,
        'precision': 'bf16',
    }
    return flat(case.method, options)


def rows_of(case: Case, folder: Path) -> Path:
    """Return the rows of a run; packed ones are half as long, so that two fill a sequence."""
    length = case.length // 2 if case.pack else case.length
    path = folder / f'rows_{case.vocabulary}_{length}.jsonl'
    count = (STEPS + 1) * case.batch * case.accumulate * (2 if case.pack else 1)
    if not path.is_file() or sum(1 for _ in path.open(encoding='utf-8')) < count:
        make_rows(path, count, length, case.vocabulary * 1000)
    return path
