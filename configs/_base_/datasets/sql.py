"""SQL: questions over CREATE TABLE statements, 79k rows."""
from xtune.data.map_fns import sql_map_fn

train_dataset = dict(
    path='b-mc2/sql-create-context',
    map_fn=sql_map_fn,
)

max_length = 2048

pack = True

chat_samples = dict(
    every_steps=500,
    prompts=[
        (
            'CREATE TABLE station (name VARCHAR, lat VARCHAR, city VARCHAR)\n'
            'Find the name, latitude, and city of stations with latitude above 50.'
        ),
        (
            'CREATE TABLE weather (zip_code VARCHAR, mean_visibility_miles INTEGER)\n'
            '找到mean_visibility_miles最大的zip_code。'
        ),
    ],
    system='sql',
    max_new_tokens=128,
)
