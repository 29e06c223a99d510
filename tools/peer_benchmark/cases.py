"""The cases of the benchmark: contenders with their features, one case per run, and its result."""

import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

METHODS = ('lora', 'qlora', 'fp8_lora', 'full')
CHECKPOINTING = ('auto', 'all', 'none', 'offload')
XTUNE_BASED = ('xtune', 'bare')
# Package of a peer: supported methods, and supported values of activation checkpointing.
PEERS = {name: (METHODS[:2] + METHODS[3:], ('all', 'none')) for name in ('trl', 'llamafactory', 'unsloth')}
CONTENDERS = (*XTUNE_BASED, *PEERS)
# Problems that do not count as failures.
OUT_OF_MEMORY, OUT_OF_TIME = 'out of memory', 'not run: out of time'


@dataclass(frozen=True)
class Case:
    """A run of a contender: `steps` optimizer steps, each with `batch` sequences of `length` tokens."""

    model: str
    method: str
    length: int
    checkpointing: str
    contender: str
    batch: int
    steps: int

    @property
    def name(self) -> str:
        """The name of the folder of the run."""
        start = f'{self.model}_{self.method}_{self.batch}x{self.length}_{self.checkpointing}_{self.steps}'
        return f'{start}_{self.contender}'

    @property
    def work(self) -> tuple:
        """The fields that are the same for contenders whose results are compared."""
        return self.model, self.method, self.length, self.checkpointing, self.batch, self.steps


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Args:
        case: The run.
        speed: Tokens per second.
        memory: Peak memory of the process, in GiB.
        first_loss: Loss of the first step.
        last_loss: Loss of the last step.
        first_step: Seconds from the start of the process to the end of its first step.
        seconds: Duration of the process.
        checkpointed: Layers with activation checkpointing at the end, such as '3 of 32'; only for xtune.
        problem: The reason why the run failed.
    """

    case: Case
    speed: float = 0.0
    memory: float = 0.0
    first_loss: float = 0.0
    last_loss: float = 0.0
    first_step: float = 0.0
    seconds: float = 0.0
    checkpointed: str = ''
    problem: str = ''

    def to_json(self) -> str:
        """Return the result as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> 'Result':
        """Return the result of a parsed line of JSON."""
        return cls(**record | dict(case=Case(**record['case'])))


def make_cases(
    models: dict[str, list[str]],
    lengths: list[int],
    checkpointing: list[str],
    contenders: list[str],
    batch: int,
    steps: int,
) -> list[Case]:
    """Return the runs of `models` (name -> methods), grouped by work, xtune first in each group.

    Work that a peer does not support is omitted.
    """
    supported_cases = []
    for model, methods in models.items():
        for method, length, value in itertools.product(methods, lengths, checkpointing):
            for name in contenders:
                supported_methods, supported_values = PEERS.get(name, (METHODS, CHECKPOINTING))
                if method in supported_methods and value in supported_values:
                    supported_cases.append(Case(model, method, length, value, name, batch, steps))
    return supported_cases
