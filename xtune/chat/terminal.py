"""`xtune chat`: load a model and chat with it, for one prompt or until /exit."""

import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..data.chat_tokenizer import ChatTokenizer
from ..data.stop_tokens import stop_token_ids as template_stops
from ..errors import TemplateError, XtuneError
from ..inference.load import load_for_inference
from ..inference.tokenizer import load_tokenizer_of
from ..models.loading.folder_checks import check_adapter_folder, check_model_folder, refuse_ids_beyond
from ..models.loading.json_files import read_json
from ..templates.resolve import resolve
from ..utils.cpu_threads import use_free_cores
from ..utils.device import best_device, compute_dtype
from .session import ChatSession, ChatSettings

HELP = """/reset        clear the conversation
/undo         remove the last question and response
/edit TEXT    replace the last question with TEXT
/history      show the conversation
/system TEXT  set the system message (without TEXT: remove it) and clear the conversation
/exit         exit (also Ctrl-D)"""


def open_session(
    model: str,
    adapter: str | None = None,
    bits: int | None = None,
    system: str | None = None,
    template: str = 'auto',
    settings: ChatSettings | None = None,
    seed: int | None = None,
    variant: str | None = None,
) -> ChatSession:
    """Load a model with its chat template and stop tokens.

    `variant` is the variant of a 2023 remote-code checkpoint, if its config.json is ambiguous.

    Raises:
        ModelError: The model folder or the adapter cannot be used.
        TemplateError: The template cannot be used.
    """
    check_model_folder(model, allow_remote_code=False)
    if adapter:
        check_adapter_folder(adapter)
    device = best_device()
    if device.type == 'cpu':
        use_free_cores()
    tokenizer = load_tokenizer_of(adapter, model, variant=variant)
    if template == 'auto' and not tokenizer.chat_template:
        raise TemplateError(
            f'{adapter or model} has no chat template, so it is not a chat model; set --template (chatml, ...)'
        )
    chat_tokenizer = ChatTokenizer(tokenizer, resolve(template, tokenizer, for_training=False))
    llm = load_for_inference(model, adapter, device, compute_dtype('auto', device), bits, variant)
    if adapter:
        refuse_ids_beyond(adapter, len(tokenizer) - 1, llm.get_input_embeddings().weight.shape[0])
    if seed is not None:
        torch.manual_seed(seed)
    is_auto = template == 'auto'
    stops = _stop_ids(model, adapter, llm, tokenizer) if is_auto else template_stops(chat_tokenizer)
    return ChatSession(llm, chat_tokenizer, stops, settings or ChatSettings(), system)


def _stop_ids(model: str, adapter: str | None, llm: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the stop tokens that training saved with the adapter, otherwise those of the model."""
    stops = read_json(Path(adapter).expanduser() / 'generation_config.json').get('eos_token_id') if adapter else None
    for other in (llm.generation_config.eos_token_id, tokenizer.eos_token_id):
        stops = other if stops is None else stops
    ids = [stops] if isinstance(stops, int) else list(stops or ())
    if not ids:
        raise TemplateError(
            f'{adapter or model} has no stop token: its generation_config.json has no eos_token_id; '
            'set --template to use the stop tokens of a template'
        )
    return ids


def talk(session: ChatSession) -> None:
    """Read questions until the end of the input; responses are streamed to the terminal."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  line editing and history for input()

        print('Type a question. /help: list commands, /exit: exit.')
    while True:
        try:
            line = input('>>> ' if interactive else '').strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line == '/exit':
            return
        if line:
            try:
                _answer(session, line)
            except KeyboardInterrupt:
                print('\n(interrupted; the question is not added to the history)')
            except XtuneError as error:
                print(f'error: {error}', file=sys.stderr)


def _answer(session: ChatSession, line: str) -> None:
    command, _, text = line.partition(' ')
    if not line.startswith('/'):
        session.ask(line, stream=True)
    elif command == '/reset':
        session.reset()
        print('(conversation cleared)')
    elif command == '/undo':
        question = session.undo()
        print(f'(removed: {question})' if question else '(nothing to undo)')
    elif command == '/edit' and text:
        before = list(session.history)
        session.undo()
        try:
            session.ask(text, stream=True)
        except (XtuneError, KeyboardInterrupt):
            session.history[:] = before
            raise
    elif command == '/history':
        for message in session.history:
            print(f'{message["role"]}: {message["content"]}')
    elif command == '/system':
        session.system = text or None
        session.reset()
        print(f'(system message: {text})' if text else '(no system message)')
    else:
        print(HELP)
