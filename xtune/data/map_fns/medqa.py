"""Questions and answers in two columns, such as the MEDINFO 2019 medication spreadsheet.

Row:     {"Question": "how does rivastigmine interact with otc sleep medicine", "Answer": "tell your doctor ..."}
Result:  user "how does rivastigmine ...", assistant "tell your doctor ..."
"""

from ...registry import map_fn
from ..conversation import Message, column, exchange


@map_fn('medqa')
def medqa_map_fn(row: dict, question: str = 'Question', answer: str = 'Answer') -> list[Message]:
    """Map one question and its answer to a conversation; the columns' names can be given."""
    return exchange(column(row, question).strip(), column(row, answer).strip())
