"""A run over any data set folder: what is measured on, which policy, and what is said of few."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from support_site import write_site

from convsearch.data.own import convert_own
from convsearch.errors import ConfigError, DataError, MissingFileError, StageError
from convsearch.nano.settings import NanoSettings
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.own_run import check_own_run, few_examples, nano_settings, style_of
from convsearch.pipeline.own_stages import told_if_few
from convsearch.pipeline.presets import preset
from convsearch.pipeline.runner import Stage
from convsearch.pipeline.sizes import fitted_grpo, fitted_sft
from convsearch.pipeline.stages import Stages
from convsearch.prompts.asking import ASKING_FILE, asking_of, write_asking


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    convert_own(*write_site(folder), folder / "mydata")
    return folder / "mydata"


def stages_of(dataset: Path, policy: Path | None = None) -> dict[str, Stage]:
    config = preset("mini", source=None, policy=policy, dataset=dataset)
    return {s.name: s for s in Stages(config, RunLayout(root=Path("run")), ExitStack()).all()}


def test_the_policy_is_a_stage_that_others_need(site: Path) -> None:
    stages = stages_of(site)
    assert list(stages)[:4] == ["data", "index", "policy", "server"]
    for name in ("distill", "infer-base"):
        assert "policy" in stages[name].needs
        assert stages[name].inputs == ()
    assert {path.name for path in stages["data"].inputs} == {
        "turns.jsonl",
        "corpus.jsonl",
        "qrels.trec",
    }
    given = stages_of(site, Path("some/policy"))
    assert "policy" not in given
    assert given["distill"].inputs == (Path("some/policy"),)


def test_the_data_are_copied_as_they_are_and_nothing_else(site: Path, tmp_path: Path) -> None:
    config = preset("mini", source=None, policy=None, dataset=site)
    (site / "grpo.parquet").write_text("x")
    layout = RunLayout(root=tmp_path)
    [data, *_] = Stages(config, layout, ExitStack()).all()
    assert data.run(lambda *_: None) == {
        "num_turns_dev": 8,
        "num_turns_test": 12,
        "num_turns_train": 40,
    }
    (site / "grpo.parquet").unlink()
    assert sorted(p.name for p in layout.data.iterdir()) == sorted(p.name for p in site.iterdir())


def test_what_is_measured_on_is_said_and_few_turns_are_warned_of(site: Path) -> None:
    config = preset("mini", source=None, policy=None, dataset=site)
    said, warned = check_own_run(config)
    assert said == (
        "mydata: trains on 40 turns of 10 conversations (split train), measures on 12 turns of 3 "
        "(split test)"
    )
    assert "40 training turns are few: 300 or more" in warned
    assert "--engine openai" in warned
    assert "--baseline history" in warned
    assert few_examples(config, {"train": 200, "turns": 400}) == ""
    assert "found 7 examples in 40" in few_examples(config, {"train": 7, "turns": 40})
    with pytest.raises(StageError, match=r"too few\. Without training"), told_if_few(config):
        raise StageError("too few")


def remade(site: Path, out: Path, **shares: float) -> Path:
    chats, kb = site.parent / "chats.jsonl", site.parent / "kb.csv"
    convert_own(chats, kb, out, **shares)  # pyright: ignore[reportArgumentType]
    return out


def test_without_a_test_split_dev_is_measured(site: Path, tmp_path: Path) -> None:
    folder = remade(site, tmp_path / "d", test_share=0, dev_share=0.2)
    config = preset("mini", source=None, policy=None, dataset=folder)
    assert "(split dev (there is no test split))" in check_own_run(config)[0]


def test_too_little_is_refused_before_anything_is_made(site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no turns of split test or dev"):
        preset(
            "mini",
            source=None,
            policy=None,
            dataset=remade(site, tmp_path / "a", test_share=0, dev_share=0),
        )
    one = preset(
        "mini", source=None, policy=None, dataset=remade(site, tmp_path / "b", test_share=0.07)
    )
    with pytest.raises(ConfigError, match="1 conversations of split 'test' to measure on"):
        check_own_run(one)
    none = preset(
        "mini", source=None, policy=None, dataset=remade(site, tmp_path / "c", test_share=0.9)
    )
    with pytest.raises(ConfigError, match="0 conversations of split 'train' to train on"):
        check_own_run(none)


def test_wrong_folders_and_flags_are_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        preset("mini", source=None, policy=None, dataset=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="leave one of them out"):
        preset("mini", source=site, policy=None, dataset=site)
    with pytest.raises(ConfigError, match="leave one of them out"):
        preset("cqr_default", source=site, policy=None, dataset=site)


@pytest.mark.parametrize("name", ["mini", "topiocqa_pages"])
def test_a_preset_gives_its_sizes_to_any_data_set(site: Path, name: str) -> None:
    config = preset(name, source=None, policy=None, dataset=site)
    assert (config.kind, config.source, config.policy) == ("folder", site, None)
    assert config.dataset == "mydata"
    assert config.data.eval_split == "test"
    assert config.grpo.total_steps == {"mini": 60, "topiocqa_pages": 100}[name]
    assert config.data.distill_turns == {"mini": 400, "topiocqa_pages": 800}[name]


def test_the_style_is_that_of_the_policy(site: Path, tmp_path: Path) -> None:
    assert style_of(Path(__file__).parents[3] / "assets" / "nano") == "nano"
    assert style_of(tmp_path) == "instruct"
    config = preset("mini", source=None, policy=tmp_path, dataset=site)
    assert (config.style, config.infer.sampling.max_tokens) == ("instruct", 512)
    assert config.grpo.max_prompt_length == 1536
    write_asking(tmp_path, asking_of("nano"))
    assert style_of(tmp_path) == "nano"
    write_asking(tmp_path, asking_of("plain"))
    with pytest.raises(ConfigError, match="'plain' cannot be trained"):
        style_of(tmp_path)
    (tmp_path / ASKING_FILE).write_text("[]")
    with pytest.raises(DataError, match=ASKING_FILE):
        style_of(tmp_path)


@pytest.mark.parametrize("rows", [1, 7, 31, 32, 500])
def test_batches_fit_what_there_is(site: Path, rows: int) -> None:
    config = preset("mini", source=None, policy=None, dataset=site)
    sft = fitted_sft(config.sft, rows)
    assert sft.batch == min(rows, config.sft.batch)
    assert sft.batch % sft.micro_batch == 0
    grpo = fitted_grpo(config.grpo, rows)
    assert grpo.prompts_per_step == min(rows, config.grpo.prompts_per_step)
    assert grpo.prompts_per_step * grpo.rollouts % grpo.micro_batch == 0


def test_in_a_small_set_more_words_are_content_words() -> None:
    usual = NanoSettings()
    assert nano_settings(usual, 50_000, 9_000) == usual
    assert nano_settings(usual, 60, 80).spans.idf_floor == pytest.approx(2.01, abs=0.01)
    assert nano_settings(usual, 3, 0).spans.idf_floor == 0
