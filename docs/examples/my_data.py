from xtune.registry import map_fn


@map_fn('help_desk')
def help_desk_map_fn(row, system='You work at a help desk.'):
    """{"ticket": "No sound.", "answer": "Plug it in."} -> system, user "No sound.", assistant "Plug it in." """
    return [
        {'role': 'system', 'content': system},
        {'role': 'user', 'content': row['ticket']},
        {'role': 'assistant', 'content': row['answer']},
    ]
