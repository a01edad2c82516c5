"""Random small corpora with many ties, and encoders of a few thousand parameters, for tests."""

import random
from pathlib import Path

from convsearch.passages import write_passages
from convsearch.types import Passage

_WORDS = (
    "amber birch castle delta ember falcon garden harbor island jasmine kettle lantern marble "
    "needle orchid pepper quartz river saddle temple"
)
WORDS = _WORDS.split()


def random_passages(num_passages: int, seed: int = 0) -> list[Passage]:
    """Short passages of few words, so that many have equal scores; ids are not in sorted order."""
    rng = random.Random(seed)
    ids = [f"p{i}" for i in range(num_passages)]
    rng.shuffle(ids)
    return [
        Passage(
            doc_id=doc_id,
            title=rng.choice(["", *WORDS]),
            text=" ".join(rng.choices(WORDS, k=rng.randint(1, 5))),
        )
        for doc_id in ids
    ]


def random_queries(num_queries: int, seed: int = 0) -> list[str]:
    """Queries of one to eight words, words may repeat."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in range(num_queries)]


def write_corpus(folder: Path, passages: list[Passage]) -> Path:
    """`corpus.jsonl` with these passages."""
    write_passages(folder / "corpus.jsonl", passages)
    return folder / "corpus.jsonl"


def make_tiny_ance(folder: Path, *, seed: int = 0, leave_out: str | None = None) -> Path:
    """A random ANCE checkpoint in the layout of the published ones, with its RoBERTa tokenizer.

    leave_out: weights whose name begins so are not written, as in a checkpoint of another model.
    """
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = _word_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    body = RobertaForSequenceClassification(config)
    head, norm = nn.Linear(config.hidden_size, 768), nn.LayerNorm(768)
    weights = dict(body.state_dict())
    weights |= {f"embeddingHead.{name}": value for name, value in head.state_dict().items()}
    weights |= {f"norm.{name}": value for name, value in norm.state_dict().items()}
    kept = {
        name: torch.randn_like(value) * 0.3 if value.ndim > 1 else torch.rand_like(value) + 0.5
        for name, value in weights.items()
        if leave_out is None or not name.startswith(leave_out)
    }
    folder.mkdir(parents=True)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["RobertaForSequenceClassification"]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_sentence_model(folder: Path, *, seed: int = 0) -> Path:
    """A random sentence-transformers model: BERT shape, mean pooling, a dense layer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    tokenizer = _word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
    )
    body = BertModel(config)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    source = folder.with_name(f"{folder.name}-source")
    body.save_pretrained(source)
    tokenizer.save_pretrained(source)
    model = SentenceTransformer(
        modules=[Transformer(str(source)), Pooling(32, "mean"), Dense(32, 24)], device="cpu"
    )
    model.save(str(folder))
    return folder


def _word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )
