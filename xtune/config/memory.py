"""A rough figure of the memory a run needs, from the number of parameters alone: the right GPU, not the right GB.

Layers and width are guessed from the parameters (a layer has about 12 width^2 of them, and models are about 128 times
as wide as deep). Measured runs of 1.5 B and 8 B are met within a fifth.
"""

from dataclasses import dataclass

# Bytes a frozen parameter takes; embeddings stay in 16 bits, hence more than 0.5 and 1.
FROZEN = {4: 0.65, 8: 1.15, 16: 2.0}
# Trained parameters: float32 weight, gradient, and two moments of Adam.
TRAINED = 16
# What allocators lose.
SLACK = 1.1


@dataclass(frozen=True)
class Memory:
    """GB (1e9 bytes) on one device; `total` is more than their sum."""

    weights: float
    trained: float
    activations: float

    @property
    def total(self) -> float:
        """GB in all."""
        return SLACK * (self.weights + self.trained + self.activations)


def estimate(billions: float, bits: int, lora_r: int | None, tokens: int, recomputed: bool) -> Memory:
    """Return what one device needs without sharding or offload.

    Args:
        billions: Parameters of the model, in 1e9.
        bits: 4, 8 or 16 per frozen weight.
        lora_r: Rank of the adapter on all linear layers; None: every weight is trained.
        tokens: Tokens in one forward pass.
        recomputed: Whether activations are recomputed in the backward pass.
    """
    width = (billions * 1e9 * 128 / 12) ** (1 / 3)
    layers = width / 128
    # Inputs and outputs of a layer's seven linear layers add up to about 19 widths.
    trained = billions if lora_r is None else 19 * width * layers * lora_r / 1e9
    # 16-bit inputs of every layer and about 40 bytes a unit of the layer at work, or 34 bytes a unit of all layers.
    unit_bytes = 2 * layers + 40 if recomputed else 34 * layers
    frozen = 0.0 if lora_r is None else billions * FROZEN[bits]
    return Memory(frozen, trained * TRAINED, tokens * width * unit_bytes / 1e9)
