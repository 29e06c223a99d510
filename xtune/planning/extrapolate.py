"""From slices of a model to the whole of it: each part of a step has a level that grows by layer, and a peak above it.

What is alive after each part of a step grows by the same bytes with each layer of a kind: the difference of two slices.
What a part takes above that level for a while is the work of one layer or of the ends, which no other layer adds to,
except in the optimizer's update, which is again a difference.
"""

from dataclasses import dataclass, replace

from .meta_model import Kind
from .partial_model import Slice


@dataclass(frozen=True)
class Levels:
    """Bytes of a run of all layers, or what one more layer adds: between steps, after each part, and its peak."""

    before: float
    after: dict[str, float]
    peak: dict[str, float]
    seconds: tuple[float, float] | None

    @classmethod
    def of(cls, found: Slice) -> 'Levels':
        """Return the levels of a slice."""
        parts = found.phases.items()
        return cls(found.before, {k: v.after for k, v in parts}, {k: v.peak for k, v in parts}, found.seconds)

    def plus(self, other: 'Levels', times: float) -> 'Levels':
        """Return these and `times` others."""
        seconds = None
        if self.seconds is not None:
            seconds = tuple(a + times * b for a, b in zip(self.seconds, other.seconds, strict=True))
        return Levels(
            self.before + times * other.before,
            {name: value + times * other.after[name] for name, value in self.after.items()},
            {name: value + times * other.peak[name] for name, value in self.peak.items()},
            seconds,
        )


@dataclass(frozen=True)
class Layers:
    """Slices of a model: the smallest that has each kind of layer, and what one more of each kind adds."""

    base: Slice
    more: dict[Kind, Levels]
    order: list[Kind]  # of the model's layers
    workspace: int  # bytes that libraries take once
    moving: int = 0  # bytes on their way to host memory or back, while layers compute

    def whole(self) -> Levels:
        """Return the levels of the whole model."""
        found = Levels.of(self.base)
        for kind, more in self.more.items():
            found = found.plus(more, self.order.count(kind) - 1)
        # Above the level after it, the peak of a part does not grow: only that of the update does.
        peak = {}
        for name, phase in self.base.phases.items():
            level = self._level(name)
            peak[name] = found.peak[name] if level is None else phase.peak - self.base.phases[level].after
            peak[name] += 0 if level is None else found.after[level]
            peak[name] += self.moving if name.startswith(('forward', 'loss', 'backward')) else 0
        return replace(found, peak=peak)

    def _level(self, name: str) -> str | None:
        """Return the part after which what is alive is what the peak of part `name` stands on."""
        part, _, number = name.partition(' ')
        if part in ('loss', 'backward'):
            loss = f'loss {number}'
            return loss if part == 'backward' and loss in self.base.phases else f'forward {number}'
        if part == 'ends':
            return f'backward {number}'
        return name if part == 'forward' else None

    def lowest_layer(self, whole: Levels) -> float:
        """Return the peak of the first layer's backward pass in the first micro-batch, as gradients have come to be.

        Its work is what the second micro-batch takes above what it leaves, as that makes no gradients that stay. What
        moves meanwhile does so one layer earlier, before that layer's gradients have come to be.
        """
        work, more = self.base.phases['backward 1'], self.more.get(self.order[0])
        lowest = whole.after['backward 0'] + work.peak - work.after
        return lowest + max(self.moving - (more.after['backward 0'] - more.before if more else 0), 0)

    def waiting(self) -> 'Layers':
        """Return the same, with what lies between layers in host memory, but of two: one copied out, one back."""
        more = {}
        for kind, levels in self.more.items():
            between = levels.after['forward 0'] - levels.before
            less = {name: between for name in levels.after if name.startswith(('forward', 'loss'))}
            after = {name: value - less.get(name, 0) for name, value in levels.after.items()}
            peak = {name: value - less.get(name, 0) for name, value in levels.peak.items()}
            more[kind] = replace(levels, after=after, peak=peak)
        between = max(
            (m.after['forward 0'] - more[kind].after['forward 0'] for kind, m in self.more.items()), default=0
        )
        return replace(self, more=more, moving=round(min(2, len(self.order) - 1) * between))


@dataclass(frozen=True)
class Choice:
    """Slices whose layers recompute, and such whose layers keep their activations, for runs with some of both."""

    recomputing: Layers
    keeping: Layers

    def costs(self) -> list[float]:
        """Return the bytes that each layer keeps more if it does not recompute."""
        name = 'forward 0'
        found = {k: m.after[name] - self.recomputing.more[k].after[name] for k, m in self.keeping.more.items()}
        # Of a kind with one layer there is no difference of slices: such kinds share what is left of the base.
        alone = [kind for kind in self.keeping.order if kind not in found]
        left = self.keeping.base.phases[name].after - self.recomputing.base.phases[name].after - sum(found.values())
        found.update(dict.fromkeys(alone, left / max(len(alone), 1)))
        return [found[kind] for kind in self.keeping.order]

    def whole(self, count: int) -> Levels:
        """Return the levels of the whole model, the first `count` layers of which recompute."""
        recomputed, kept = self.recomputing.whole(), self.keeping.whole()
        if not 0 < count < len(self.keeping.order):
            return recomputed if count else kept
        more, share = sum(self.costs()[count:]), count / len(self.keeping.order)
        after, peak = dict(recomputed.after), dict(recomputed.peak)
        for number in '01':
            forward, backward = f'forward {number}', f'backward {number}'
            for name in (forward, f'loss {number}'):
                if name in after:
                    after[name] += more
                    peak[name] += more
            # Kept layers come first in the backward pass, and leave nothing when it comes to the others.
            first = after[forward] + kept.peak[backward] - kept.after[forward]
            peak[backward] = max(first, peak[backward])
        seconds = recomputed.seconds
        if seconds is not None:
            pairs = zip(recomputed.seconds, kept.seconds, strict=True)
            seconds = tuple(share * slow + (1 - share) * fast for slow, fast in pairs)
        return Levels(recomputed.before, after, peak, seconds)
