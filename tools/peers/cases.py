"""Which runs there are: contenders, what each can do, and what came out."""

import json
from dataclasses import asdict, dataclass
from typing import Any

METHODS = ('lora', 'qlora', 'fp8_lora', 'full')
CHECKPOINTING = ('auto', 'all', 'none', 'offload')
OURS = ('xtune', 'bare')
# The package that must be there, and what it can do: its methods, its ways of checkpointing.
PEERS = {name: (METHODS[:2] + METHODS[3:], ('all', 'none')) for name in ('trl', 'llamafactory', 'unsloth')}
CONTENDERS = (*OURS, *PEERS)
# Problems that are no faults.
NO_MEMORY, NO_TIME = 'out of memory', 'not run: out of time'


@dataclass(frozen=True)
class Case:
    """What a contender is to do: `batch` rows of `length` tokens in each of `steps` steps."""

    model: str
    method: str
    length: int
    checkpointing: str
    contender: str
    batch: int
    steps: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        start = f'{self.model}_{self.method}_{self.batch}x{self.length}_{self.checkpointing}_{self.steps}'
        return f'{start}_{self.contender}'

    @property
    def work(self) -> tuple:
        """What contenders have in common that do the same."""
        return self.model, self.method, self.length, self.checkpointing, self.batch, self.steps


@dataclass(frozen=True)
class Result:
    """Tokens/s, peak GiB of the process, first and last loss, seconds from the start of the process to the end of
    the first step and to its own end, how many layers xtune recomputed at last ('3 of 32'); or what went wrong."""

    case: Case
    speed: float = 0.0
    memory: float = 0.0
    first_loss: float = 0.0
    last_loss: float = 0.0
    first_step: float = 0.0
    seconds: float = 0.0
    recomputed: str = ''
    problem: str = ''

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, found: dict[str, Any]) -> 'Result':
        """Return the result whose JSON holds `found`."""
        return cls(**found | dict(case=Case(**found['case'])))


def cases(
    models: dict[str, list[str]], lengths: list[int], ways: list[str], contenders: list[str], batch: int, steps: int
) -> list[Case]:
    """Return the runs of `models` (name -> methods); those that do the same follow each other, xtune first.

    A peer has no run of what it cannot do.
    """
    found = []
    for model, methods in models.items():
        for method, length, way in ((m, n, w) for m in methods for n in lengths for w in ways):
            for name in contenders:
                can, may = PEERS.get(name, (METHODS, CHECKPOINTING))
                if method in can and way in may:
                    found.append(Case(model, method, length, way, name, batch, steps))
    return found
