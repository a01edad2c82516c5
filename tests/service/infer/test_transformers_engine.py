"""The engine's own loop against transformers' generate(), and what it does with bad models."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from rewriting import some_turns
from tiny_model import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from convsearch.errors import CheckpointError, ConfigError, EngineError, PromptError
from convsearch.infer import Engine, SamplingParams, open_engine
from convsearch.infer.checkpoint import fingerprint
from convsearch.infer.kv_cache import GrowingLayer, growing_cache
from convsearch.prompts import parse_rewrite, rewrite_messages
from convsearch.types import derive_seed

CHATS = [rewrite_messages(turn, "nano") for turn in some_turns(9)]
SEEDS = [derive_seed(5, str(i)) for i in range(9)]
SAMPLED = SamplingParams(temperature=0.9, max_tokens=24)
GREEDY = SamplingParams(temperature=0.0, max_tokens=24)


@pytest.fixture(scope="module")
def engine(taught_model: Path) -> Engine:
    return open_engine("transformers", str(taught_model), device="cpu")


def generate_greedily(folder: Path, chat: list[dict[str, str]]) -> tuple[str, int]:
    """One chat through transformers' own generate()."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, do_sample=False, max_new_tokens=24)
    new = out[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True), len(new)


def test_greedy_equals_generate(engine: Engine, taught_model: Path):
    found = engine.generate(CHATS, GREEDY, SEEDS)
    for chat, generation in list(zip(CHATS, found, strict=True))[:4]:
        assert (generation.text, generation.num_tokens) == generate_greedily(taught_model, chat)
    assert sum(parse_rewrite(g.text) is not None for g in found) >= 3


def test_an_untaught_model_too_so_that_lengths_and_limits_agree(tmp_path: Path):
    folder = make_tiny_model(tmp_path / "random", tied=True)
    engine = open_engine("transformers", str(folder), device="cpu")
    for chat, generation in zip(CHATS, engine.generate(CHATS, GREEDY, SEEDS), strict=True):
        assert generation.num_tokens == 24
        if chat in CHATS[:3]:
            assert (generation.text, 24) == generate_greedily(folder, chat)


def test_a_row_depends_on_its_own_seed_not_on_its_neighbours(engine: Engine):
    together = engine.generate(CHATS, SAMPLED, SEEDS)
    for order in (range(8, -1, -1), range(4, 6)):
        part = engine.generate([CHATS[i] for i in order], SAMPLED, [SEEDS[i] for i in order])
        assert part == [together[i] for i in order]
    other = engine.generate(CHATS, SAMPLED, [seed + 1 for seed in SEEDS])
    assert sum(a.text != b.text for a, b in zip(together, other, strict=True)) > 4


def test_candidates_of_one_prompt_are_read_once_and_drawn_apart(engine: Engine):
    mixed = [CHATS[0], CHATS[1]] * 6
    seeds = [derive_seed(1, "x", i) for i in range(12)]
    together = engine.generate(mixed, SAMPLED, seeds)
    assert together == [
        engine.generate([chat], SAMPLED, [seed])[0] for chat, seed in zip(mixed, seeds, strict=True)
    ]
    assert len({g.text for g in together[::2]}) > 2


def test_ids_without_a_token_are_never_drawn(taught_model: Path, tmp_path: Path):
    """An embedding matrix larger than the vocabulary, with the largest logits in its padding."""
    folder = tmp_path / "padded"
    shutil.copytree(taught_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    known = model.config.vocab_size
    model.resize_token_embeddings(known + 64, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[known:] = 50 * model.lm_head.weight[:64].sign()
    model.save_pretrained(folder)
    padded = open_engine("transformers", str(folder), device="cpu")
    assert isinstance(padded, Engine)
    original = open_engine("transformers", str(taught_model), device="cpu")
    assert padded.generate(CHATS, SAMPLED, SEEDS) == original.generate(CHATS, SAMPLED, SEEDS)


def test_a_prompt_that_leaves_no_room_fails_alone(engine: Engine):
    long = [{"role": "user", "content": "amber " * 3000}]
    found = engine.generate([CHATS[0], long, CHATS[1]], GREEDY, SEEDS[:3])
    assert found[1].error is not None
    assert "reads at most 1024" in found[1].error
    assert [found[0], found[2]] == engine.generate(CHATS[:2], GREEDY, SEEDS[:2])
    assert engine.generate([long], GREEDY, SEEDS[:1])[0].error == found[1].error


def test_the_answer_stops_where_the_context_ends(tmp_path: Path):
    folder = make_tiny_model(tmp_path / "random")  # hardly ever ends by itself
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def size(words: int) -> int:
        chat = [{"role": "user", "content": "amber " * words}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return len(tokenizer.encode(text))

    words = next(n for n in range(1024, 0, -1) if size(n) <= 1024 - 10)
    chat = [{"role": "user", "content": "amber " * words}]
    engine = open_engine("transformers", str(folder), device="cpu")
    [found] = engine.generate([chat], GREEDY, [0])
    assert found.num_tokens == 1024 - size(words) < 24


def test_the_cache_gives_what_upstreams_gives():
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicCache().layer_class_to_replicate()
    rows = torch.tensor([2, 0, 2])
    for step, positions in enumerate([5, 1, 70, 1, 1]):
        states = torch.randn(3, 2, positions, 4)
        found, expected = ours.update(states, -states), theirs.update(states, -states)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert ours.get_seq_length() == theirs.get_seq_length()
        if step == 2:
            ours.batch_select_indices(rows)
            theirs.batch_select_indices(rows)


def test_the_model_really_uses_the_growing_cache(taught_model: Path):
    model = AutoModelForCausalLM.from_pretrained(taught_model)
    cache = growing_cache(model.config)
    model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    assert all(isinstance(layer, GrowingLayer) for layer in cache.layers)
    assert cache.get_seq_length() == 3


def test_a_damaged_model_is_an_engine_error(taught_model: Path, tmp_path: Path):
    folder = tmp_path / "nan"
    shutil.copytree(taught_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(EngineError, match="NaN"):
        open_engine("transformers", str(folder), device="cpu").generate(CHATS, GREEDY, SEEDS)


# --- what is not a checkpoint --------------------------------------------------------------------


def broken(taught_model: Path, tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(taught_model, folder)
    if kind == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif kind == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    elif kind == "bad config":
        (folder / "config.json").write_text("{not json")
    elif kind == "other type":
        (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    elif kind == "layer missing":
        config = json.loads((folder / "config.json").read_text())
        config["num_hidden_layers"] = 3
        config.pop("layer_types", None)
        (folder / "config.json").write_text(json.dumps(config))
    elif kind == "no template":
        (folder / "chat_template.jinja").unlink()
    elif kind == "file":
        folder = folder / "config.json"
    elif kind == "nothing":
        folder = tmp_path / "nowhere"
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty folder", "config.json is missing"),
        ("no weights", "no .* weights in it"),
        ("no tokenizer", "no tokenizer"),
        ("cut weights", "cannot be loaded"),
        ("bad config", "cannot be loaded"),
        ("other type", "cannot be loaded"),
        ("layer missing", "weights are missing"),
        ("no template", "no chat template"),
        ("file", "is a file"),
        ("nothing", "no such folder"),
    ],
)
def test_what_is_not_a_checkpoint_is_said_in_a_sentence(
    kind: str, said: str, taught_model: Path, tmp_path: Path
):
    folder = broken(taught_model, tmp_path, kind)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_engine("transformers", str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_cannot_be_read_fails_alone(engine: Engine):
    chats = [CHATS[0], [{"role": "user", "content": "half a \ud83d pair"}], CHATS[1]]
    first, refused, last = engine.generate(chats, GREEDY, [0, 1, 2])
    assert refused.error is not None
    assert "the tokenizer cannot read this prompt" in refused.error
    assert [first.text, last.text] == [g.text for g in engine.generate(CHATS[:2], GREEDY, [0, 2])]


def test_a_template_that_refuses_every_prompt_stops_the_run(taught_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(taught_model, folder)
    for refusal in ("raise_exception('no')", "messages[0]['content'] + 1", "messages[99].x.y"):
        (folder / "chat_template.jinja").write_text("{{ " + refusal + " }}")
        engine = open_engine("transformers", str(folder), device="cpu")
        with pytest.raises(PromptError, match="the chat template refuses a chat of user"):
            engine.generate(CHATS[:3], GREEDY, [0, 1, 2])


def test_the_fingerprint_follows_the_weights_not_the_place(taught_model: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(taught_model, moved)
    (moved / "README.md").write_text("a card")
    assert fingerprint(str(moved)) == fingerprint(str(taught_model))
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint(str(moved)) != fingerprint(str(taught_model))


def test_unknown_engines_and_missing_settings_are_named(taught_model: Path):
    for name, model, said in (
        ("magic", None, "choose one of transformers"),
        ("transformers", None, "--model"),
        ("openai", "m", "--engine-url"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_engine(name, model)


def test_a_long_conversation_loses_its_oldest_turns_and_is_counted(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    def asked(exchanges: int) -> list[dict[str, str]]:
        said = [f"{'QA'[i % 2]}: {'amber birch ' * 20}{i}" for i in range(2 * exchanges)]
        return [{"role": "user", "content": "\n".join([*said, "Q: castle delta"])}]

    [long, short] = engine.generate([asked(60), asked(2)], GREEDY, SEEDS[:2])
    assert long.error is None
    assert 512 < long.prompt_tokens <= 1024 - 24
    assert "oldest turns are left out" in caplog.text
    assert short == engine.generate([asked(2)], GREEDY, SEEDS[1:2])[0]


def test_a_mistyped_name_asks_no_hub_and_an_absent_hub_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"^nomodel: no such folder, and no name of a hub"):
        open_engine("transformers", "nomodel")
    with pytest.raises(CheckpointError, match=r"^someone/nomodel: no such folder, and the hub"):
        open_engine("transformers", "someone/nomodel")
    assert time.monotonic() - started < 20
    assert "Retry" not in caplog.text
