"""verl's FSDP engine on processors: prompts are computed once, logits only where they are needed.

Registered for the device `cpu`, where verl has no engine of its own. It gives the numbers of verl's
engine (a test compares them) in a fraction of the time; what it does not cover goes to verl's code.
"""

# verl's registering decorator has no types: pyright takes the base class for `object`.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import torch
from tensordict import TensorDict
from torch.nn import functional
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import (
    FSDPEngineWithLMHead,
    FSDPEngineWithValueHead,
)

from convsearch_verl.shared_prefix import SharedPrefixLayout, shared_prefix_layout

_NOT_COVERED = (
    "use_remove_padding",
    "use_fused_kernels",
    "calculate_sum_pi_squared",
    "distillation_use_topk",
    "distillation_only",
)
_LAYOUT = "shared_prefix_layout"


class SharedPrefixEngine(FSDPEngineWithLMHead):
    """Log-probabilities (and entropies) of response tokens; those of prompt tokens are left 0.

    The loss masks of verl leave prompt tokens out, for SFT and for reinforcement learning alike.
    """

    def prepare_model_inputs(
        self, micro_batch: TensorDict
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if not _covered(micro_batch):
            return super().prepare_model_inputs(micro_batch)
        sequences = list(micro_batch["input_ids"].unbind())
        layout = shared_prefix_layout(
            sequences,
            _prompt_lengths(micro_batch, sequences),
            tu.get_non_tensor_data(data=micro_batch, key="pad_token_id", default=0),
        )
        temperature = micro_batch["temperature"]
        if isinstance(temperature, torch.Tensor):
            _require_one(temperature)
            temperature = float(temperature.flatten()[0])
        model_inputs = {
            "input_ids": layout.input_ids,
            "attention_mask": layout.attention_mask,
            "position_ids": layout.position_ids,
            "logits_to_keep": layout.kept,
        }
        return model_inputs, {_LAYOUT: layout, "temperature": temperature}

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict[str, Any],
        micro_batch: TensorDict,
        logits_processor_func: Any,
    ) -> dict[str, torch.Tensor]:
        if _LAYOUT not in output_args:
            return super().prepare_model_outputs(
                output, output_args, micro_batch, logits_processor_func
            )
        layout: SharedPrefixLayout = output_args[_LAYOUT]
        logits = output.logits.float().flatten(0, 1)
        if output_args["temperature"] != 1.0:
            logits = logits / max(output_args["temperature"], 1e-8)
        offsets = micro_batch["input_ids"].offsets()
        log_probs = -functional.cross_entropy(logits, layout.labels.flatten(), reduction="none")
        outputs = {"log_probs": _spread(log_probs, layout, offsets)}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            entropy = self.compute_entropy_from_logits(logits)
            outputs["entropy"] = _spread(entropy, layout, offsets)
        return outputs


def _covered(micro_batch: TensorDict) -> bool:
    settings = {
        name: tu.get_non_tensor_data(data=micro_batch, key=name, default=False)
        for name in _NOT_COVERED
    }
    return not any(settings.values())


def _prompt_lengths(micro_batch: TensorDict, sequences: list[torch.Tensor]) -> list[int]:
    """Tokens before the first that is learned. The loss mask covers the response alone in
    reinforcement learning, and the whole sequence in SFT."""
    lengths = []
    for ids, mask in zip(sequences, micro_batch["loss_mask"].unbind(), strict=True):
        learned = mask.nonzero()
        first = int(learned[0]) if len(learned) else len(mask) - 1
        whole = len(mask) == len(ids)
        lengths.append(max(first, 1) if whole else len(ids) - len(mask))
    return lengths


def _spread(
    values: torch.Tensor, layout: SharedPrefixLayout, offsets: torch.Tensor
) -> torch.Tensor:
    """Back to one value a token of the sequences as they came, jagged."""
    flat = values.new_zeros(int(offsets[-1]))
    flat = flat.index_put((layout.target,), values[layout.source])
    return torch.nested.nested_tensor_from_jagged(flat, offsets)


def _require_one(temperature: torch.Tensor) -> None:
    assert bool((temperature == temperature.flatten()[0]).all()), "one temperature for a batch"


def load_critic(
    local_path: str, torch_dtype: torch.dtype, model_config: Any, trust_remote_code: bool
) -> Any:
    """A model with one value a token. verl's own loader insists on flash attention."""
    from transformers import AutoModelForTokenClassification

    return AutoModelForTokenClassification.from_pretrained(
        local_path,
        dtype=torch_dtype,
        config=model_config,
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
    )


def install() -> None:
    """Registers the engine with verl, and verl's own for critics. Idempotent."""
    from verl.utils import model

    model.load_valuehead_model = load_critic
    engines = {"language_model": SharedPrefixEngine, "value_model": FSDPEngineWithValueHead}
    for model_type, engine in engines.items():
        for backend in ("fsdp", "fsdp2"):
            if "cpu" not in EngineRegistry._engines[model_type][backend]:
                EngineRegistry.register(model_type, backend, device="cpu")(engine)
