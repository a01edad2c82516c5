"""`rollouts/<step>.jsonl`: every response that a step trains on, with what became of it.

verl's own dump (`trainer.rollout_data_dir`) has the texts and the reward, and comes after the
checkpoint of its step: a trainer killed in between leaves a step without one. This one is written
before the update, so a step is either recorded or done again.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from convsearch.files import write_jsonl

_FIELDS = ["prompts", "responses", "reward_model", "extra_fields"]
"""Of TransferQueue: two of token ids, two of values."""


class RolloutDump:
    """Writes one file a step. For `rollout_dump.folder`."""

    def __init__(self, folder: Path, tokenizer_path: str) -> None:
        self._folder = folder
        self._tokenizer_path = tokenizer_path
        self._step = 0
        self._records: list[dict[str, object]] = []

    @cached_property
    def _tokenizer(self) -> Any:
        from verl.utils import hf_tokenizer

        return hf_tokenizer(self._tokenizer_path)

    def write(self, step: int, keys: Sequence[str], partition_id: str) -> None:
        """Adds these samples (names in TransferQueue) to the file of their step, group by group."""
        import transfer_queue as tq

        data: Any = tq.kv_batch_get(
            keys=list(keys), partition_id=partition_id, select_fields=_FIELDS
        )
        ids = [data[name].unbind() for name in _FIELDS[:2]]
        rest = [[getattr(value, "data", value) for value in data[name]] for name in _FIELDS[2:]]
        rows = [
            self._record(step, key, *values) for key, *values in zip(keys, *ids, *rest, strict=True)
        ]
        if step != self._step:
            self._step, self._records = step, []
        self._records = sorted([*self._records, *rows], key=lambda row: _order(str(row["uid"])))
        write_jsonl(self._folder / f"{step}.jsonl", self._records)

    def _record(
        self,
        step: int,
        key: str,
        prompt_ids: Any,
        response_ids: Any,
        reward_model: Mapping[str, object],
        extra_fields: Mapping[str, Any],
    ) -> dict[str, object]:
        return {
            "input": self._tokenizer.decode(prompt_ids, skip_special_tokens=True),
            "output": self._tokenizer.decode(response_ids, skip_special_tokens=True),
            "gts": _plain(reward_model.get("ground_truth")),
            "step": step,
            "uid": key,
            **outcome(extra_fields["reward_extra_info"]),
        }


def outcome(info: Mapping[str, Any]) -> dict[str, object]:
    """What the reward manager said of a response, as the file has it: `score` twice, by verl's name
    and as `reward`; `rank` null where no gold passage was found or nothing was searched."""
    rank = info.get("rank")
    told = {name: _plain(value) for name, value in info.items() if name != "rank"}
    if rank is not None:
        told["rank"] = int(rank) if rank > 0 else None
    return {**told, "reward": told["score"]}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _order(key: str) -> tuple[str, list[int]]:
    """`<group>_<sample>_<output>`: samples of a group in the order they were drawn."""
    group, *numbers = key.split("_")
    return group, [int(number) for number in numbers]
