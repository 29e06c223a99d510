"""Stanford Alpaca, English (52k rows)."""
from xtune.data.map_fns import alpaca_map_fn

train_dataset = dict(
    path='tatsu-lab/alpaca',
    map_fn=alpaca_map_fn,
)
