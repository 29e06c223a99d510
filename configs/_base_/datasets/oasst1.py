"""OpenAssistant conversations, the Guanaco subset (9.8k rows)."""
from xtune.data.map_fns import oasst1_map_fn

train_dataset = dict(
    path='timdettmers/openassistant-guanaco',
    map_fn=oasst1_map_fn,
)
