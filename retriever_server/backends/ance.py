"""The ANCE encoder (arXiv 2007.00808) in the layout of its published checkpoints.

RoBERTa, the vector of the first token, a linear layer `embeddingHead` to 768 and a layer norm
`norm`; relevance is the inner product. Importing this module needs torch and transformers.
"""

import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, RobertaConfig, RobertaModel, RobertaPreTrainedModel

from convsearch.errors import CheckpointError
from retriever_server.backends.encoder import Vectors

DIM = 768
_RESERVED_POSITIONS = 2
"""RoBERTa counts positions from 2."""


class AnceModel(RobertaPreTrainedModel):
    """Names of the parts are those of the checkpoints, classifier and pooler left out."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.embeddingHead = nn.Linear(config.hidden_size, DIM)
        self.norm = nn.LayerNorm(DIM)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask (batch, length) -> vectors (batch, 768)."""
        states = self.roberta(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.norm(self.embeddingHead(states[:, 0]))


class AnceEncoder:
    """See `Encoder`."""

    kind = "ance"
    dim = DIM

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where files are missing or broken, or lack any weight."""
        try:
            loaded = AnceModel.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (
            OSError,
            ValueError,
            RuntimeError,
            SafetensorError,
            pickle.UnpicklingError,
        ) as error:
            raise CheckpointError(f"{folder}: the ANCE checkpoint does not load: {error}") from None
        model, report = cast(tuple[AnceModel, dict[str, set[str]]], loaded)
        missing = sorted(report["missing_keys"])
        if missing:
            raise CheckpointError(
                f"{folder}: {len(missing)} weights not in the checkpoint, such as {missing[0]}; "
                "it is not an ANCE encoder, or incomplete: download it again"
            )
        if len(self._tokenizer) > model.config.vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer knows {len(self._tokenizer)} tokens, the model only "
                f"{model.config.vocab_size}; they are of different models"
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = self._device.type
        self._model = nn.Module.to(model.eval(), self._device)
        self._longest = model.config.max_position_embeddings - _RESERVED_POSITIONS
        self._lock = threading.Lock()

    def encode(
        self, texts: Sequence[str], *, is_query: bool, max_length: int, batch_size: int
    ) -> Vectors:
        """See `Encoder.encode`; queries and passages are treated alike."""
        unique = sorted(set(texts), key=lambda text: (len(text), text))
        rows = {text: row for row, text in enumerate(unique)}
        vectors = np.empty((len(unique), DIM), dtype=np.float32)
        with self._lock, torch.inference_mode():  # fast tokenizers must not be shared by threads
            for start in range(0, len(unique), batch_size):
                batch = unique[start : start + batch_size]
                tokens = self._tokenizer(
                    batch,
                    padding=True,
                    truncation=True,
                    return_tensors="pt",
                    max_length=min(max_length, self._longest),
                ).to(self._device)
                output = self._model(tokens["input_ids"], tokens["attention_mask"])
                vectors[start : start + len(batch)] = output.float().cpu().numpy()
        return vectors[[rows[text] for text in texts]]
