"""vLLM's surface, as far as the engine uses it, over the transformers engine.

For machines where vLLM does not install; `scripts/test_vllm.sh` runs the same assertions on vLLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypedDict

from convsearch.infer import SamplingParams as OurParams
from convsearch.infer.transformers_engine import TransformersEngine


class TokensPrompt(TypedDict):
    """`vllm.TokensPrompt`."""

    prompt_token_ids: list[int]


@dataclass(kw_only=True)
class SamplingParams:
    """`vllm.SamplingParams`."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    skip_special_tokens: bool = True
    stop: list[str] = field(default_factory=list)


class LLM:
    """`vllm.LLM`: ids in; out come ids, end token included, and a text without a stop string."""

    def __init__(self, *, model: str, **_: object) -> None:
        self.inner = TransformersEngine(model, device="cpu")
        context = self.inner._context
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=context))

    def get_tokenizer(self) -> Any:
        return self.inner._tokenizer

    def generate(
        self,
        prompts: Sequence[TokensPrompt],
        *,
        sampling_params: Sequence[SamplingParams],
        use_tqdm: bool,
    ) -> list[SimpleNamespace]:
        return [self._one(p, s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: TokensPrompt, params: SamplingParams) -> SimpleNamespace:
        ids = prompt["prompt_token_ids"]
        if len(ids) + params.max_tokens > self.inner._context:
            raise ValueError(f"The prompt (length {len(ids)}) is longer than the model's maximum")
        ours = OurParams(
            temperature=params.temperature, top_p=params.top_p, max_tokens=params.max_tokens
        )
        [made] = self.inner.generate_ids([ids], ours, [params.seed], params.stop)
        text, reason = made.text, "length"
        if made.ids[-1] in self.inner._end_ids:
            reason = "stop"
        for mark in params.stop:
            if mark in text:
                text, reason = text[: text.index(mark)], "stop"
        output = SimpleNamespace(text=text, token_ids=list(made.ids), finish_reason=reason)
        return SimpleNamespace(outputs=[output])
