"""The engine that runs anywhere: Hugging Face transformers on a CPU or one GPU.

Own sampling loop instead of `generate()`: every row draws from its own seed, prompts that occur
several times in a batch (candidates of one turn) are read once, and finished rows leave the batch.
"""

from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

from convsearch.agent.frames import ChatFrames
from convsearch.errors import CheckpointError, DependencyError, EngineError, install_command
from convsearch.infer.checkpoint import check_model, fingerprint, model_name
from convsearch.infer.engine import Generation, SamplingParams
from convsearch.infer.prompt_reader import NO_LIMIT, PromptReader, read_prompts
from convsearch.infer.sampling import next_tokens, row_uniforms
from convsearch.infer.token_engine import TokenGeneration
from convsearch.types import ChatMessage

if TYPE_CHECKING:
    import torch

COMPACT_SHARE = 0.75
"""The batch is cut to its unfinished rows once they are at most this share of it."""


class TransformersEngine:
    """A causal language model in this process.

    model: a checkpoint folder or a hub name. device: `auto` takes the GPU where there is one.
    dtype: `auto` is float32 on a CPU (bfloat16 is slower there) and the checkpoint's own on a GPU.
    Raises CheckpointError where the model cannot be loaded whole.
    """

    def __init__(self, model: str, *, device: str = "auto", dtype: str = "auto") -> None:
        check_model(model)
        try:
            import torch
            import transformers
            from safetensors import SafetensorError
        except ImportError as error:
            raise DependencyError(
                f"torch and transformers are not installed; run {install_command('infer')}"
            ) from error
        from convsearch.infer.hub_models import find_model
        from convsearch.infer.kv_cache import growing_cache

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        on_cpu = torch.device(device).type == "cpu"
        chosen = ("float32" if on_cpu else "auto") if dtype == "auto" else dtype
        source = find_model(model)
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            loaded, info = cast(
                "tuple[transformers.PreTrainedModel, dict[str, set[str]]]",
                transformers.AutoModelForCausalLM.from_pretrained(
                    source, dtype=chosen, output_loading_info=True
                ),
            )
        except (
            OSError,
            ValueError,
            KeyError,
            RuntimeError,
            SafetensorError,
            UnpicklingError,
        ) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{model}: cannot be loaded as a causal language model ({reason}); name a whole "
                "Hugging Face checkpoint"
            ) from error
        if info["missing_keys"]:
            raise CheckpointError(
                f"{model}: weights are missing from the checkpoint "
                f"({', '.join(sorted(info['missing_keys'])[:3])}); export the whole model"
            )
        if self._tokenizer.chat_template is None:
            raise CheckpointError(
                f"{model}: the tokenizer has no chat template; add chat_template.jinja to it"
            )
        self._torch = torch
        self._name = model
        self._empty_cache = growing_cache
        self._device = torch.device(device)
        self._model = loaded.eval()
        self._model.to(device)  # pyright: ignore[reportArgumentType] - decorated upstream
        self._context = getattr(loaded.config, "max_position_embeddings", None) or NO_LIMIT
        self.reader = PromptReader(self._tokenizer, self._context)
        self._end_ids = self._find_end_ids()
        self._absent_ids: torch.Tensor | None = None
        self._frames: ChatFrames | None = None
        self.identity: Mapping[str, str | int | float | None] = {
            "engine": "transformers",
            "model": model_name(model),
            "weights": fingerprint(model),
            "device": self._device.type,
            "dtype": str(loaded.dtype).removeprefix("torch."),
        }

    def generate(
        self, chats: Sequence[list[ChatMessage]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[Generation]:
        """See Engine. A conversation that is too long loses its oldest turns. A prompt that cannot
        be read or leaves no room for an answer is an error of that prompt; one that leaves less
        than max_tokens gets a shorter limit. Raises PromptError where none can be read."""
        prompts, errors = read_prompts(self.reader, chats, params.max_tokens)
        limits = [min(params.max_tokens, self._context - len(prompt)) for prompt in prompts]
        rows = [i for i in range(len(chats)) if i not in errors]
        responses: list[list[int]] = []
        if rows:
            with self._torch.inference_mode():
                responses = self._decode(
                    [prompts[i] for i in rows],
                    [limits[i] for i in rows],
                    params,
                    [seeds[i] for i in rows],
                )
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]
        answered = {
            i: Generation(
                text=text,
                num_tokens=len(ids),
                prompt_tokens=len(prompts[i]),
                is_cut=ids[-1] not in self._end_ids,
            )
            for i, text, ids in zip(rows, texts, responses, strict=True)
        }
        return [answered.get(i) or Generation(error=errors[i]) for i in range(len(chats))]

    def close(self) -> None:
        """See Engine."""
        self.reader.close()
        del self._model
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()

    def chat_ids(self, chat: Sequence[ChatMessage]) -> list[int]:
        """See TokenEngine."""
        return list(self.reader.ids(chat))

    def reply_ids(self, text: str, after: Sequence[int] | None) -> list[int]:
        """See TokenEngine."""
        if self._frames is None:
            self._frames = ChatFrames(self._tokenizer, self._end_ids)
        return self._frames.reply_ids(text, after)

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
    ) -> list[TokenGeneration]:
        """See TokenEngine. A prompt without room is an error of that prompt, as in `generate`."""
        limits = [min(params.max_tokens, self._context - len(prompt)) for prompt in prompts]
        made = [
            TokenGeneration(
                error=f"the dialogue has {len(prompt)} tokens and the model reads at most "
                f"{self._context}"
            )
            for prompt in prompts
        ]
        rows = [i for i, limit in enumerate(limits) if limit > 0]
        if rows:
            with self._torch.inference_mode():
                responses = self._decode(
                    [tuple(prompts[i]) for i in rows],
                    [limits[i] for i in rows],
                    params,
                    [seeds[i] for i in rows],
                    stop,
                )
            for i, ids in zip(rows, responses, strict=True):
                text = self._tokenizer.decode(ids, skip_special_tokens=True)
                made[i] = TokenGeneration(ids=tuple(ids), text=str(text))
        return made

    def _find_end_ids(self) -> frozenset[int]:
        configured = self._model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*ids, self._tokenizer.eos_token_id] if i is not None)

    def _says(self, response: list[int], stop: Sequence[str]) -> bool:
        """Whether the end of a response holds one of the strings."""
        if not stop:
            return False
        longest = max(len(text.encode()) for text in stop)  # no token is shorter than a byte
        tail = str(self._tokenizer.decode(response[-longest - 1 :]))
        return any(text in tail for text in stop)

    def _mask_absent(self, logits_BV: "torch.Tensor") -> "torch.Tensor":
        """-inf for ids that the tokenizer has no token for (padding of the embedding matrix)."""
        torch = self._torch
        if self._absent_ids is None:
            absent = torch.ones(logits_BV.shape[-1], dtype=torch.bool)
            known = torch.tensor(sorted(self._tokenizer.get_vocab().values()))
            absent[known[known < len(absent)]] = False
            self._absent_ids = absent.to(self._device)
        masked_BV = logits_BV.masked_fill(self._absent_ids, float("-inf"))
        if masked_BV.isnan().any():
            raise EngineError(
                f"{self._name}: the model computes NaN; the checkpoint is damaged or "
                "needs another --dtype"
            )
        return masked_BV

    def _decode(
        self,
        prompts: Sequence[tuple[int, ...]],
        limits: Sequence[int],
        params: SamplingParams,
        seeds: Sequence[int],
        stop: Sequence[str] = (),
    ) -> list[list[int]]:
        """Token ids of each response, the end token included. B rows, V ids, L positions."""
        torch, device = self._torch, self._device
        unique = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        width = max(map(len, unique))
        ids_UL = torch.zeros((len(unique), width), dtype=torch.long)
        mask_UL = torch.zeros((len(unique), width), dtype=torch.long)
        for prompt, i in unique.items():
            ids_UL[i, width - len(prompt) :] = torch.tensor(prompt)
            mask_UL[i, width - len(prompt) :] = 1
        ids_UL, mask_UL = ids_UL.to(device), mask_UL.to(device)
        cache = self._empty_cache(self._model.config)
        out = self._model(
            input_ids=ids_UL,
            attention_mask=mask_UL,
            position_ids=(mask_UL.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        expand_B = torch.tensor([unique[prompt] for prompt in prompts], device=device)
        cache.batch_select_indices(expand_B)
        mask_BL = mask_UL[expand_B]
        logits_BV = out.logits[expand_B, -1]
        num_steps = max(limits)
        uniforms_BT = row_uniforms(seeds, num_steps).to(device)
        rows = list(range(len(prompts)))  # rows[b]: the prompt that batch row b answers
        finished = [False] * len(prompts)
        responses: list[list[int]] = [[] for _ in prompts]
        for step in range(num_steps):
            token_B = next_tokens(self._mask_absent(logits_BV), uniforms_BT[:, step], params)
            for row, token in zip(rows, token_B.tolist(), strict=True):
                if not finished[row]:
                    responses[row].append(token)
                    finished[row] = token in self._end_ids or step + 1 >= limits[row]
                    finished[row] = finished[row] or self._says(responses[row], stop)
            left = [b for b, row in enumerate(rows) if not finished[row]]
            if not left:
                break
            if len(left) <= COMPACT_SHARE * len(rows):
                rows = [rows[b] for b in left]
                keep_B = torch.tensor(left, device=device)
                cache.batch_select_indices(keep_B)
                token_B, mask_BL = token_B[keep_B], mask_BL[keep_B]
                uniforms_BT = uniforms_BT[keep_B]
            mask_BL = torch.cat([mask_BL, mask_BL.new_ones((len(rows), 1))], dim=-1)
            out = self._model(
                input_ids=token_B[:, None],
                attention_mask=mask_BL,
                position_ids=mask_BL.sum(-1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            )
            logits_BV = out.logits[:, -1]
        return responses
