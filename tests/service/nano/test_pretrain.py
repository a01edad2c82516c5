"""A nano policy of a few steps: a whole folder, a card that states what was measured."""

from pathlib import Path

import pytest

from convsearch.errors import ConfigError
from convsearch.files import write_turns
from convsearch.nano.pretrain import Domain, build_nano
from convsearch.nano.settings import NanoSettings
from convsearch.passages import write_passages
from convsearch.prompts.asking import asking_of, read_asking
from convsearch.types import Message, Passage, Turn


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    folder = tmp_path / "toy"
    names = [f"name{i}" for i in range(30)]
    write_passages(
        folder / "corpus.jsonl",
        [Passage(doc_id=n, title=n, text=f"{n} is a mill by the river") for n in names],
    )
    history = (Message(role="user", text="where is name1"), Message(role="agent", text="by name2"))
    write_turns(
        folder / "turns.jsonl",
        [
            Turn(qid=f"q{i}", conv_id="c", turn=2, split="train", question="who", history=history)
            for i in range(8)
        ],
    )
    return Domain.load(folder)


def test_build_writes_a_policy_that_loads_and_says_how_it_was_made(
    domain: Domain, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "policy"
    losses: list[float] = []
    settings = NanoSettings(vocab_size=320, intermediate_size=32, steps=6, batch_size=4)
    report = build_nano(
        [domain], out, settings, command="make it", on_progress=lambda _, loss: losses.append(loss)
    )
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert report.num_responses == 8
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(out))
    asking = asking_of(
        "nano", max_prompt_tokens=384, max_response_tokens=96, stage="nano", dataset="toy"
    )
    assert read_asking(out) == asking
    card = (out / "README.md").read_text()
    assert "Ask it in prompt style `nano`, with at most 96 tokens" in card
    assert "`make it`" in card
    assert f"{report.num_malformed} of 8" in card
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_build_needs_a_domain(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dataset"):
        build_nano([], tmp_path / "p", NanoSettings(steps=1), command="")
