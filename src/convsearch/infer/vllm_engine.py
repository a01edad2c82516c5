"""The engine for GPUs: vLLM's continuous batching, with one seed for each request.

Chats and dialogues alike go to vLLM as token ids, so what a model reads is what was counted.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from convsearch.agent.frames import ChatFrames
from convsearch.errors import CheckpointError, DependencyError, install_command
from convsearch.infer.checkpoint import check_model, fingerprint, model_name
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.infer.hub_models import find_model
from convsearch.infer.prompt_reader import PromptReader, read_prompts
from convsearch.infer.token_engine import TokenGeneration
from convsearch.types import ChatMessage


class VllmEngine:
    """A model served by vLLM inside this process.

    tensor_parallel_size: GPUs that share one copy of the model. Raises DependencyError where vLLM
    is not installed, CheckpointError where it cannot load the model.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
    ) -> None:
        try:
            vllm = importlib.import_module("vllm")
        except ImportError as error:
            raise DependencyError(
                f"vLLM is not installed; run {install_command('vllm')} on a machine with a "
                "GPU, or choose --engine transformers"
            ) from error
        check_model(model)
        source = find_model(model)
        try:
            self._llm = vllm.LLM(
                model=source,
                dtype=dtype,
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                seed=0,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{model}: vLLM cannot load it ({reason})") from error
        self._vllm = vllm
        self._tokenizer = self._llm.get_tokenizer()
        self._frames: ChatFrames | None = None
        self._context = int(self._llm.llm_engine.model_config.max_model_len)
        self.reader = PromptReader(self._tokenizer, self._context)
        self.identity: Mapping[str, str | int | float | None] = {
            "engine": "vllm",
            "model": model_name(model),
            "weights": fingerprint(model),
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
        }

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. A conversation that is too long loses its oldest turns. A prompt that cannot
        be read or leaves no room for an answer is an error of that prompt. Raises PromptError where
        none can be read."""
        prompts, errors = read_prompts(self.reader, chats, params.max_tokens)
        rows = [i for i in range(len(chats)) if i not in errors]
        outputs = self._complete([prompts[i] for i in rows], params, [seeds[i] for i in rows])
        answered = {
            i: Generation(
                text=output.text,
                num_tokens=len(output.token_ids),
                prompt_tokens=len(prompts[i]),
                is_cut=output.finish_reason == "length",
            )
            for i, output in zip(rows, outputs, strict=True)
        }
        return [answered.get(i) or Generation(error=errors[i]) for i in range(len(chats))]

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
    ) -> list[TokenGeneration]:
        """See TokenEngine. A prompt without room is an error of that prompt, as in `generate`."""
        return [
            TokenGeneration(error=self.reader.too_long(len(prompt)))
            if output is None
            else TokenGeneration(
                ids=tuple(output.token_ids),
                # vLLM cuts its own text before or after a stop string; the ids are what was said.
                text=str(self._tokenizer.decode(output.token_ids, skip_special_tokens=True)),
            )
            for prompt, output in zip(
                prompts, self._complete(prompts, params, seeds, stop), strict=True
            )
        ]

    def chat_ids(self, chat: Sequence[ChatMessage]) -> list[int]:
        """See TokenEngine."""
        return list(self.reader.ids(chat))

    def reply_ids(self, text: str, after: Sequence[int] | None) -> list[int]:
        """See TokenEngine."""
        if self._frames is None:
            self._frames = ChatFrames(self._tokenizer, frozenset(self._tokenizer.all_special_ids))
        return self._frames.reply_ids(text, after)

    def close(self) -> None:
        """See Engine."""
        self.reader.close()
        del self._llm

    def _complete(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
    ) -> list[Any]:
        """vLLM's `CompletionOutput` for each prompt, by position; None where there is no room."""
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) < self._context]
        outputs = self._llm.generate(
            [self._vllm.TokensPrompt(prompt_token_ids=list(prompts[i])) for i in rows],
            sampling_params=[
                self._vllm.SamplingParams(
                    temperature=params.temperature,
                    top_p=params.top_p,
                    max_tokens=min(params.max_tokens, self._context - len(prompts[i])),
                    seed=seeds[i],
                    stop=list(stop),
                    skip_special_tokens=True,
                )
                for i in rows
            ],
            use_tqdm=False,
        )
        answers: list[Any] = [None] * len(prompts)
        for i, output in zip(rows, outputs, strict=True):
            answers[i] = output.outputs[0]
        return answers
