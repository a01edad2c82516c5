"""verl's data set of prompts for recipes: a prompt that is too long loses its oldest turns.

verl's agent loop cuts a prompt's first tokens, which are the instruction. Selected by
`data.custom_cls`. `convsearch grpo` cuts its file before verl starts and does not need it.
"""

import logging
from typing import Any

import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

from convsearch.agent.frames import render_chat
from convsearch.errors import DataError
from convsearch.prompts.shortening import shortened
from convsearch.types import ChatMessage

log = logging.getLogger(__name__)


class PromptRows(RLHFDataset):
    """As upstream's, but for the prompts that are longer than `data.max_prompt_length`."""

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> "datasets.Dataset":
        """Called once when the rows are there. Raises DataError for a prompt that is too long even
        without earlier turns."""
        rows: datasets.Dataset = dataframe
        changed: dict[int, list[ChatMessage]] = {}
        for i, chat in enumerate(rows[self.prompt_key]):
            cut = shortened(chat, self._fits)
            if cut is None:
                raise DataError(
                    f"{self.original_data_files}: row {i + 1}: longer than "
                    f"data.max_prompt_length={self.max_prompt_length} even without earlier turns; "
                    "raise it (PROMPT_TOKENS of the recipes) or leave the row out"
                )
            if cut.num_dropped:
                changed[i] = cut.chat
        if not changed:
            return rows
        log.warning("%d of %d prompts lost their oldest turns", len(changed), len(rows))

        def put(row: dict[str, Any], i: int) -> dict[str, Any]:
            return {self.prompt_key: changed.get(i, row[self.prompt_key])}

        return rows.map(put, with_indices=True, load_from_cache_file=False)

    def _fits(self, chat: list[ChatMessage]) -> bool:
        text = render_chat(self.tokenizer, chat, self.apply_chat_template_kwargs)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(ids) <= self.max_prompt_length  # pyright: ignore[reportArgumentType]
