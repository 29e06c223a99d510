"""Data sets of one task each; all rows get the same system message.

The argument `system` of each function is the name of a built-in system prompt or a text; None: no system message.
"""

from ...messages import Message, column, exchange
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import question_and_response


@map_fn('arxiv')
def arxiv_map_fn(row: dict, system: str | None = 'arxiv_gentile') -> list[Message]:
    r"""Titles for abstracts, from the metadata of arXiv.

    Row:
        {"id": "2001.00001", "title": "Small Models Count", "abstract": "We let models count.",
         "categories": "cs.CL cs.AI", "update_date": "2020-01-03"}
    Result:
        system: "If you are an expert in writing papers, please generate a good paper title for this paper "
                "based on other authors' descriptions of their abstracts."
        user: "We let models count."
        assistant: "Small Models Count"
    """
    return question_and_response(row, ('abstract',), 'title', system)


@map_fn('code_alpaca')
def code_alpaca_map_fn(row: dict, system: str | None = 'coder') -> list[Message]:
    r"""Programming tasks, as in CodeAlpaca_20K.

    Row:
        {"prompt": "Sum a sequence of integers.\n[1, 2, 3]", "completion": "sum([1, 2, 3])"}
    Result:
        system: "You are a professional programer. Please provide the corresponding code based on the "
                "description of Human."
        user: "Sum a sequence of integers.\n[1, 2, 3]"
        assistant: "sum([1, 2, 3])"
    """
    return question_and_response(row, ('prompt',), 'completion', system)


@map_fn('colors')
def colors_map_fn(row: dict, system: str | None = 'colorist') -> list[Message]:
    r"""Colors for descriptions, as in burkelibbey/colors.

    Row:
        {"color": "#66ccff", "description": "Light Sky Blue: A calming, fairly bright color."}
    Result:
        system: "You are a professional color designer. Please provide the corresponding colors based on the "
                "description of Human."
        user: "A calming, fairly bright color."
        assistant: "#66ccff"

    The question is the text after the first colon; without a colon, the full description.
    """
    text = column(row, 'description')
    name, _, rest = text.partition(':')
    return exchange((rest.strip() or name.strip()), column(row, 'color'), system and system_text(system))


@map_fn('crime_kg_assitant')
def crime_kg_assitant_map_fn(row: dict, system: str | None = 'lawyer') -> list[Message]:
    r"""Questions to a Chinese lawyer, as in CrimeKgAssitant (the spelling is the data set's).

    Row:
        {"input": "请问离婚需要准备什么材料？", "output": "身份证、户口本和结婚证。"}
    Result:
        system: "你现在是一名专业的中国律师，请根据用户的问题给出准确、有理有据的回复。"
        user: "请问离婚需要准备什么材料？"
        assistant: "身份证、户口本和结婚证。"
    """
    return question_and_response(row, ('input',), 'output', system)


@map_fn('law_reference')
def law_reference_map_fn(row: dict, system: str | None = 'lawyer') -> list[Message]:
    r"""Questions to a Chinese lawyer with references to the law; the column `reference` is ignored.

    Row:
        {"question": "该公司是否需要承担责任？", "answer": "根据《妇女权益保障法》第八十条规定，需要。",
         "reference": ["社会法-妇女权益保障法2022-10-30:    \"第八十条 ……\",\n"]}
    Result:
        system: "你现在是一名专业的中国律师，请根据用户的问题给出准确、有理有据的回复。"
        user: "该公司是否需要承担责任？"
        assistant: "根据《妇女权益保障法》第八十条规定，需要。"
    """
    return question_and_response(row, ('question',), 'answer', system)


@map_fn('sql')
def sql_map_fn(row: dict, system: str | None = 'sql') -> list[Message]:
    r"""SQL queries for a table and a question, as in sql-create-context.

    Row:
        {"question": "How many heads are older than 56?", "context": "CREATE TABLE head (age INTEGER)",
         "answer": "SELECT COUNT(*) FROM head WHERE age > 56"}
    Result:
        system: "If you are an expert in SQL, please generate a good SQL Query for Question based on the CREATE "
                "TABLE statement."
        user: "CREATE TABLE head (age INTEGER)\nHow many heads are older than 56?"
        assistant: "SELECT COUNT(*) FROM head WHERE age > 56"
    """
    return question_and_response(row, ('context', 'question'), 'answer', system)


@map_fn('tiny_codes')
def tiny_codes_map_fn(row: dict, system: str | None = 'coder') -> list[Message]:
    r"""Code snippets with explanations, as in tiny-codes.

    Row:
        {"prompt": "Write a Bash snippet that prints the date.", "response": "Here it is: `date`",
         "programming_language": "Bash"}
    Result:
        system: "You are a professional programer. Please provide the corresponding code based on the "
                "description of Human."
        user: "Write a Bash snippet that prints the date."
        assistant: "Here it is: `date`"
    """
    return question_and_response(row, ('prompt',), 'response', system)
