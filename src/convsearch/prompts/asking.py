"""How a model is to be asked: the file `convsearch.json` in its folder.

Training writes it, whoever asks the model reads it. The files that a model is trained on carry the
same record, so that the prompt is known from where it was written to where it is answered.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from convsearch.errors import DataError
from convsearch.files import atomic_write
from convsearch.prompts.rewrite import PROMPT_STYLES, PromptStyle, rewrite_messages
from convsearch.texts import Record, parse_json
from convsearch.types import ChatMessage, Message, Turn

ASKING_FILE = "convsearch.json"
FORMAT = 1
"""Raised where an older version could not read the file rightly."""
_COUNTS = ("max_prompt_tokens", "max_response_tokens")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is known of how a model was trained to be asked; None where it is not."""

    style: PromptStyle
    """Prompt style, which also says how the answer is read."""
    template_sha256: str
    """`template_sha256` of the style at that time: its words may have changed since."""
    max_prompt_tokens: int | None = None
    """Longest prompt in training."""
    max_response_tokens: int | None = None
    """Longest response in training."""
    stage: str | None = None
    """What made the model: `nano`, `sft`, `grpo`."""
    dataset: str | None = None
    """Name of the data set that it was trained on."""
    engine: str | None = None
    """Kind of the search engine that it was trained for, such as `bm25`."""
    index: str | None = None
    """Name of its index, where it has one."""
    index_fingerprint: str | None = None
    """Which passages, searched how: see `IndexInfo`."""


def asking_of(style: PromptStyle, **known: object) -> Asking:
    """With the words that the style has now. known: other fields of Asking."""
    record: Record = {"style": style, "template_sha256": template_sha256(style), **known}
    return Asking(**record)  # pyright: ignore[reportArgumentType] - names of fields


def template(style: PromptStyle) -> list[ChatMessage]:
    """The words of a style around a conversation whose texts are named in braces."""
    return rewrite_messages(_turn("{question}", "{earlier question}", "{its answer}"), style)


def template_sha256(style: PromptStyle) -> str:
    """Hash of all that a style makes of a conversation: of `template`, of a first question, and of
    one that is long, which some styles cut."""
    long = [f"{'question' if i % 2 == 0 else 'answer'} {i} {'word ' * 20}" for i in range(40)]
    turns = (_turn("{question}"), _turn("long " * 200, *long))
    chats = [template(style), *(rewrite_messages(turn, style) for turn in turns)]
    return hashlib.sha256(json.dumps(chats).encode()).hexdigest()


def as_record(asking: Asking) -> dict[str, object]:
    """JSON-ready; the words of the prompt are added for people, and not read again."""
    return {
        "format": FORMAT,
        **{name: value for name, value in asdict(asking).items() if value is not None},
        "template": template(asking.style),
    }


def write_asking(folder: Path, asking: Asking) -> None:
    """Writes `convsearch.json` into a model's folder."""
    with atomic_write(folder / ASKING_FILE) as out:
        json.dump(as_record(asking), out, indent=2, ensure_ascii=False)
        out.write("\n")


def read_asking(model: str | Path) -> Asking | None:
    """What the folder of a model says; None where it says nothing, or where it is no folder here.

    Raises DataError for a file that is damaged, of another program, or of a newer version.
    """
    path = Path(model) / ASKING_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; {_WAY_OUT}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_WAY_OUT}") from None
    return parse_asking(text, str(path))


def parse_asking(text: str, where: str) -> Asking:
    """The record as JSON. Raises DataError as `read_asking`."""
    record = parse_json(text, where)
    found = record.pop("format", None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DataError(
            f'{where}: does not tell how a model is asked (field "format" is missing); {_WAY_OUT}'
        )
    if found > FORMAT:
        raise DataError(
            f"{where}: of a newer version of convsearch (format {found}; this one reads "
            f"{FORMAT}); update convsearch, or remove the file and name the prompt with --prompt"
        )
    record.pop("template", None)
    known = {field.name for field in fields(Asking)}
    if unknown := sorted(record.keys() - known):
        raise DataError(f'{where}: field "{unknown[0]}" is not known; {_WAY_OUT}')
    if record.get("style") not in tuple(PROMPT_STYLES):
        raise DataError(
            f'{where}: field "style" must be one of {", ".join(PROMPT_STYLES)}, found '
            f"{record.get('style')!r}; {_WAY_OUT}"
        )
    for name in known - {"style"}:
        value, is_count = record.get(name), name in _COUNTS
        if value is None and name != "template_sha256":
            continue
        kind = int if is_count else str
        if not isinstance(value, kind) or isinstance(value, bool) or (is_count and value < 1):  # pyright: ignore[reportOperatorIssue]
            wanted = "a whole number above 0" if is_count else "text"
            raise DataError(f'{where}: field "{name}" must be {wanted}; {_WAY_OUT}')
    return Asking(**record)  # pyright: ignore[reportArgumentType] - checked above


_WAY_OUT = "make the model again, or remove the file and name the prompt with --prompt"


def _turn(question: str, *history: str) -> Turn:
    said = tuple(
        Message(role="agent" if i % 2 else "user", text=text) for i, text in enumerate(history)
    )
    return Turn(qid="q", conv_id="c", turn=1, split="any", question=question, history=said)
