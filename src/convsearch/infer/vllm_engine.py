"""The engine for GPUs: vLLM's continuous batching, with one seed for each request."""

import importlib
from collections.abc import Mapping, Sequence

from convsearch.errors import CheckpointError, DependencyError
from convsearch.infer.checkpoint import check_model, fingerprint, model_name
from convsearch.infer.engine import Generation, SamplingParams
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
                "vLLM is not installed; run pip install 'convsearch[vllm]' on a machine with a "
                "GPU, or choose --engine transformers"
            ) from error
        check_model(model)
        try:
            self._llm = vllm.LLM(
                model=model,
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
        self._context = int(self._llm.llm_engine.model_config.max_model_len)
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
        """See Engine. A prompt that leaves no room for an answer is an error of that prompt."""
        prompts = [self._prompt_ids(chat) for chat in chats]
        answers = [
            Generation(
                error=f"the prompt has {len(prompt)} tokens and the model reads at most "
                f"{self._context}"
            )
            for prompt in prompts
        ]
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) < self._context]
        outputs = self._llm.generate(
            [self._vllm.TokensPrompt(prompt_token_ids=prompts[i]) for i in rows],
            sampling_params=[
                self._vllm.SamplingParams(
                    temperature=params.temperature,
                    top_p=params.top_p,
                    max_tokens=min(params.max_tokens, self._context - len(prompts[i])),
                    seed=seeds[i],
                    skip_special_tokens=True,
                )
                for i in rows
            ],
            use_tqdm=False,
        )
        for i, output in zip(rows, outputs, strict=True):
            best = output.outputs[0]
            answers[i] = Generation(
                text=best.text,
                num_tokens=len(best.token_ids),
                prompt_tokens=len(prompts[i]),
                is_cut=best.finish_reason == "length",
            )
        return answers

    def close(self) -> None:
        """See Engine."""
        del self._llm

    def _prompt_ids(self, chat: list[ChatMessage]) -> list[int]:
        text = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer.encode(text, add_special_tokens=False))
