"""How a trained model is to be asked: as the rows were that it was trained on."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from convsearch.data.parquet import is_for_agents, read_rows_asking
from convsearch.errors import RetrieverError
from convsearch.prompts import PROMPT_STYLES, style_of_chat
from convsearch.prompts.asking import Asking, asking_of, read_asking
from convsearch.retrieval.info import IndexInfo, index_name

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 5.0


def asking_of_training(
    model: Path,
    train_file: Path,
    *,
    stage: str,
    max_prompt_tokens: int | None = None,
    max_response_tokens: int | None = None,
    retriever_url: str | None = None,
    column: str = "prompt",
) -> Asking | None:
    """What the folder of the trained model will say; None for a search agent, and, with a warning,
    where neither the rows nor the folder of the first model tell the prompt style.

    model: that the training starts from. retriever_url: of the server that ranks in this training;
    without one, what ranked for the rows counts, else for the first model. column: of the rows'
    chats. Warns where rows and model contradict each other. Raises DataError as `read_asking`.
    """
    if is_for_agents(train_file):
        return None
    of_rows = read_rows_asking(train_file) or _recognised(train_file, column)
    of_model = read_asking(model)
    if of_rows is not None and of_model is not None and of_rows.style != of_model.style:
        log.warning(
            "%s: the prompts are of style %s, and %s was trained with %s; make them with --prompt "
            "%s, or expect that the model has to learn the format anew",
            train_file,
            of_rows.style,
            model,
            of_model.style,
            of_model.style,
        )
    found = of_rows or of_model
    if of_rows is None and of_model is not None and PROMPT_STYLES[of_model.style].instruction:
        found = None  # the words of that style would have been recognised
    if found is None:
        log.warning(
            "%s: its prompts are of no style that this version knows, and %s does not say how it "
            "is asked: the trained model will not say it either; name the prompt with --prompt "
            "where you ask it",
            train_file,
            model,
        )
        return None
    same = of_model if of_model is not None and of_model.style == found.style else None
    layers = [asking for asking in (found, same) if asking is not None]

    def first(name: str) -> Any:
        return next((value for a in layers if (value := getattr(a, name)) is not None), None)

    ranked = next((a for a in layers if a.engine is not None), found)
    asking = replace(
        found,
        stage=stage,
        dataset=first("dataset"),
        max_prompt_tokens=max_prompt_tokens or first("max_prompt_tokens"),
        max_response_tokens=max_response_tokens or first("max_response_tokens"),
        engine=ranked.engine,
        index=ranked.index,
        index_fingerprint=ranked.index_fingerprint,
    )
    if retriever_url is None:
        return asking
    info = _served(retriever_url)
    return replace(
        asking,
        engine=info.engine if info else None,
        index=index_name(retriever_url),
        index_fingerprint=info.fingerprint if info else None,
    )


def _served(retriever_url: str) -> IndexInfo | None:
    """What ranks behind a server; None, with a warning, where it does not say."""
    from convsearch.retrieval.client import RetrieverClient

    try:
        with RetrieverClient(retriever_url, timeout_s=ANSWER_TIMEOUT_S, attempts=1) as client:
            return client.read_info()
    except RetrieverError as error:
        log.warning("what the model is trained for will not be recorded: %s", error)
        return None


def _recognised(train_file: Path, column: str) -> Asking | None:
    """By the first row, of a file that was made before files told it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(train_file) as file:
        if column not in file.schema_arrow.names:
            return None
        for batch in file.iter_batches(batch_size=1, columns=[column]):
            chat = batch.column(0)[0].as_py()
            is_chat = isinstance(chat, list) and chat and all(isinstance(m, dict) for m in chat)
            style = style_of_chat(chat) if is_chat else None
            return asking_of(style) if style else None
    return None
