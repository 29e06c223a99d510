"""The runs of plan_check.py: their models, rows and configs."""

from dataclasses import dataclass, replace
from pathlib import Path

from common.benchmark_configs import benchmark_options, config_text
from common.synthetic_inputs import write_random_rows

STEPS = 6
MODEL_1B = dict(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
)
TINY = MODEL_1B | dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2)
TINY |= dict(num_hidden_layers=3)


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        method: Fine-tuning method.
        vocabulary: Vocabulary size, in thousands.
        batch: Sequences per micro-batch.
        length: Tokens per sequence.
        checkpointing: Value of `activation_checkpointing`.
        accumulation_steps: Micro-batches per optimizer step.
        pack: Whether each sequence consists of two packed rows.
        compile: Value of `speed.compile`.
    """

    method: str
    vocabulary: int
    batch: int
    length: int
    checkpointing: str | int
    accumulation_steps: int = 2
    pack: bool = False
    compile: bool = True

    @property
    def name(self) -> str:
        """The name in the table."""
        suffix = ' packed' * self.pack + ' not compiled' * (not self.compile)
        suffix += ' no accumulation' * (self.accumulation_steps == 1)
        return f'{self.method} {self.vocabulary}k {self.batch} x {self.length} {self.checkpointing}{suffix}'


CASES = [
    Case('lora', 32, 4, 2048, 'all'),
    Case('lora', 32, 4, 2048, 'none'),
    Case('lora', 32, 4, 2048, 8),
    Case('lora', 32, 8, 2048, 'offload'),
    Case('qlora', 128, 4, 2048, 'none'),
    Case('fp8_lora', 128, 4, 2048, 'all'),
    Case('lora', 128, 2, 2048, 'auto', pack=True),
    Case('full', 32, 2, 1024, 'none', accumulation_steps=1, compile=False),
]


def select_cases(numbers: list[int] | None, tiny: bool) -> list[Case]:
    """Return the cases with these numbers (None: all).

    With `tiny`, sequences are short, and cases with a float8 base are omitted, because they need a GPU.
    """
    cases = CASES if numbers is None else [CASES[number] for number in numbers]
    if not tiny:
        return cases
    short = [replace(case, batch=2, length=128) for case in cases if case.method != 'fp8_lora']
    return [replace(case, checkpointing=2) if case.checkpointing == 8 else case for case in short]


def model_folder(case: Case, folder: Path) -> Path:
    """Return the model folder of `case` in `folder`."""
    return folder / f'model_{case.vocabulary}'


def config(case: Case, folder: Path) -> str:
    """Return the config of a run. All sequences have the full length, and no checkpoint is saved."""
    rows = rows_file(case, folder)
    options = benchmark_options(model_folder(case, folder), rows, case.length, case.batch, STEPS)
    options |= {
        'pack': case.pack,
        'activation_checkpointing': case.checkpointing,
        'schedule.gradient_accumulation_steps': case.accumulation_steps,
        'speed.compile': case.compile,
        'precision': 'bf16',
    }
    return config_text(case.method, options)


def rows_file(case: Case, folder: Path) -> Path:
    """Return the data file of a run, after writing it if needed. Two packed rows fill a sequence."""
    length = case.length // 2 if case.pack else case.length
    path = folder / f'rows_{case.vocabulary}_{length}.jsonl'
    count = (STEPS + 1) * case.batch * case.accumulation_steps * (2 if case.pack else 1)
    if not path.is_file() or sum(1 for _ in path.open(encoding='utf-8')) < count:
        write_random_rows(path, count, length, case.vocabulary * 1000)
    return path
