"""`convsearch agent` as typed: over a real index, with an endpoint that plays the model."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from agent_case import answer, call
from fastapi import FastAPI, HTTPException, Request
from live_server import serving
from tiny_model import make_tiny_model

from convsearch.cli.main import main
from convsearch.files import read_jsonl, write_jsonl

NUMBER = 6
Cli = Callable[..., tuple[int, str, str]]


def endpoint() -> tuple[FastAPI, SimpleNamespace]:
    """A model that searches for the word of the question and answers with what it read; asked to
    shorten, it repeats the passages, or gives nothing where `deaf` says so. `sick`: refuses
    these questions."""
    app = FastAPI()
    seen = SimpleNamespace(bodies=[], deaf=False, wise=True, sick=[])

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        body = await request.json()
        seen.bodies.append(body)
        text = "\n".join(m["content"] for m in body["messages"])
        if any(f"made {name}?" in text for name in seen.sick):
            raise HTTPException(400, "too long")
        if "You shorten search results" in text:
            said = "" if seen.deaf else text.split("Passages:\n")[1]
        elif "Doc 1 (Title" in text or "made by" in text:
            maker = re.search(r"made by (\w+)", text)
            said = answer(maker[1] if maker and seen.wise else "nobody")
        else:
            word = re.search(r"made thing(\d+)", text)
            assert word is not None
            said = call("plain", f"thing{word[1]} maker", f"thing{word[1]}")
        return {"choices": [{"message": {"content": said}}], "usage": {"completion_tokens": 9}}

    return app, seen


@pytest.fixture
def live() -> Iterator[tuple[str, SimpleNamespace]]:
    app, seen = endpoint()
    with serving(app) as url:
        yield url, seen


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convsearch", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, said.out, said.err

    return run


@pytest.fixture
def made(tmp_path: Path, cli: Cli) -> SimpleNamespace:
    """A question folder and its index, made by the commands."""
    source = tmp_path / "source"
    source.mkdir()
    write_jsonl(
        source / "corpus.jsonl",
        [
            {"id": f"w{i}", "title": f"thing{i}", "text": f"thing{i} was made by Maker{i}."}
            for i in range(40)
        ],
    )
    write_jsonl(
        source / "dev.jsonl",
        [
            {
                "id": f"q{i}", "dataset": "made", "split": "dev", "type": "bridge",
                "question": f"Who made thing{i}?", "answers": [f"Maker{i}"], "gold": [f"w{i}"],
            }
            for i in range(NUMBER)
        ],
    )  # fmt: skip
    data, index = tmp_path / "data", tmp_path / "index"
    assert cli("data", "qa", "--source", source, "--out", data)[0] == 0
    assert cli("index", "--corpus", data / "corpus.jsonl", "--out", index, "--workers", 1)[0] == 0
    return SimpleNamespace(data=data, index=index, root=tmp_path)


def test_where_no_question_is_answered_the_command_fails_and_asks_again_the_next_time(
    cli: Cli, made: SimpleNamespace, live
):
    url, seen = live
    seen.sick = [f"thing{i}" for i in range(NUMBER)]
    out = made.root / "episodes.jsonl"
    command = [
        "agent", "infer", "--dataset", made.data, "--index", made.index, "--engine", "openai",
        "--model", "m", "--engine-url", url, "--out", out, "--batch-size", 2,
    ]  # fmt: skip
    code, said, err = cli(*command)
    assert (code, said) == (2, "")
    assert f"no answer to any of {NUMBER} questions (the first: HTTP 400" in err
    assert [path.name for path in made.root.iterdir() if "episodes" in path.name] == []
    seen.sick = ["thing0", "thing1"]
    code, said, _ = cli(*command)
    assert code == 0
    assert f"answered {NUMBER - 2}, no_answer 0, failed 2" in said
    before = out.read_bytes()
    assert cli(*command, "--retry-failed")[0] == 2
    assert out.read_bytes() == before
    seen.sick = []
    code, said, _ = cli(*command, "--retry-failed")
    assert (code, f"answered {NUMBER}" in said) == (0, True)


def test_infer_and_eval_side_by_side(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    common = [
        "--dataset", made.data, "--index", made.index, "--engine", "openai", "--model", "m",
        "--engine-url", url,
    ]  # fmt: skip
    paths = {}
    for name, options in {
        "expand": [],
        "rag": ["--strategy", "rag", "--topk", 1],
        "squeezed": ["--squeezer", "extractive"],
    }.items():
        paths[name] = made.root / f"{name}.jsonl"
        code, out, _ = cli("agent", "infer", *common, "--out", paths[name], *options)
        assert code == 0
        assert f"answered {NUMBER}" in out
    code, out, _ = cli(
        "agent", "eval", *paths.values(), "--dataset", made.data, "--out", made.root / "scores"
    )
    assert code == 0
    metrics = json.loads((made.root / "scores" / "metrics.json").read_text())
    means = {run["name"]: run["means"] for run in metrics["runs"]}
    assert {name: mean["em"] for name, mean in means.items()} == dict.fromkeys(paths, 1.0)
    assert means["expand"]["queries"] == 2
    assert means["rag"]["documents"] == 1
    assert metrics["runs"][2]["labels"]["squeezer"] == "extractive"
    assert metrics["equal_budget"]["documents"] == 1
    assert "EM" in out
    assert "s a question" in out
    again = len(seen.bodies)
    assert cli("agent", "infer", *common, "--out", paths["expand"])[0] == 0
    assert len(seen.bodies) == again
    code, _, err = cli("agent", "infer", *common, "--out", paths["expand"], "--topk", 2)
    assert code == 2
    assert "was made with other settings: search" in err
    words = ["agent", "eval", "--dataset", made.data, "--out", made.root / "scores"]
    code, _, err = cli(*words, paths["rag"], paths["rag"])
    assert code == 2
    assert "named twice" in err
    few = [made.root / "few.jsonl", made.root / "fewer.jsonl"]
    for path in few:
        assert cli("agent", "infer", *common, "--limit", 2, "--out", path)[0] == 0
    code, out, _ = cli("agent", "paired", *few, "--dataset", made.data, "--limit", 2)
    assert code == 0
    assert "2 questions" in out


def test_a_model_squeezes_with_a_cost_and_a_cache(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    words = [
        "agent", "infer", "--dataset", made.data, "--index", made.index, "--engine", "openai",
        "--model", "m", "--engine-url", url, "--squeezer", "llm", "--squeezer-model", "s",
        "--squeezer-url", url, "--squeezer-cache", made.root / "cache.sqlite",
        "--usd-per-million-input", 1,
    ]  # fmt: skip
    code, out, err = cli(*words, "--out", made.root / "a.jsonl")
    assert code == 0
    assert "the squeezer is asked at most 18 times" in err
    assert "USD" in err
    assert f"answered {NUMBER}" in out
    asked = sum(body["model"] == "s" for body in seen.bodies)
    assert asked == NUMBER
    assert cli(*words, "--out", made.root / "b.jsonl")[0] == 0
    assert sum(body["model"] == "s" for body in seen.bodies) == asked
    seen.deaf = True
    code, _, err = cli(*words[:-4], "--out", made.root / "c.jsonl")
    assert code == 2
    assert f"the squeezer failed in {NUMBER} of {NUMBER} calls" in err
    assert not (made.root / "c.jsonl").exists()
    tight = [*words[:-4], "--squeezer-max-tokens", 10, "--out", made.root / "d.jsonl"]
    code, _, err = cli(*tight)
    assert code == 2
    assert "of its 10 tokens" in err


def test_chat_shows_its_turns(cli: Cli, made: SimpleNamespace, live, monkeypatch):
    url, _ = live
    words = ["agent", "chat", "--index", made.index, "--engine", "openai", "--model", "m"]
    code, out, _ = cli(*words, "--engine-url", url, "Who made thing3?")
    assert code == 0
    assert "searching: thing3 maker | thing3" in out
    assert "results (" in out
    assert "Maker3\n" in out
    assert "2 turns, 2 queries" in out
    monkeypatch.setattr(sys, "stdin", iter_lines("Who made thing4?\n", "\n", "never asked\n"))
    code, out, _ = cli(*words, "--engine-url", url)
    assert "Maker4\n" in out
    assert "never asked" not in out


def test_a_chat_in_which_nothing_was_answered_fails(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    seen.sick.append("thing3")
    words = ["agent", "chat", "--index", made.index, "--engine", "openai", "--model", "m"]
    words += ["--engine-url", url]
    code, _, err = cli(*words, "Who made thing3?")
    assert code == 2
    assert "no answer to any of 1 questions" in err
    code, out, _ = cli(*words, "Who made thing3?", "Who made thing4?")
    assert code == 0
    assert "Maker4\n" in out


def iter_lines(*lines: str) -> SimpleNamespace:
    left = list(lines)
    return SimpleNamespace(readline=lambda: left.pop(0) if left else "", isatty=lambda: False)


def test_direct_needs_no_search_engine(cli: Cli, made: SimpleNamespace):
    out_path = made.root / "direct.jsonl"
    code, out, _ = cli(
        "agent", "infer", "--dataset", made.data, "--engine", "echo", "--strategy", "direct",
        "--out", out_path,
    )  # fmt: skip
    assert code == 0
    assert f"no_answer {NUMBER}" in out


def test_ablate_writes_a_table_of_its_rows(cli: Cli, made: SimpleNamespace):
    folder = made.root / "ablation"
    code, out, _ = cli(
        "agent", "ablate", "--dataset", made.data, "--index", made.index, "--out", folder,
        "--variants", "1,2", "--topk", "1,3",
    )  # fmt: skip
    assert code == 0
    rows = json.loads((folder / "ablation.json").read_text())
    assert [(row["k"], row["n"]) for row in rows] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert rows[0]["all_gold_top"] == 1.0
    assert (folder / "ablation.md").read_text().strip() in out
    words = ["agent", "ablate", "--dataset", made.data, "--index", made.index, "--out", folder]
    code, _, err = cli(*words, "--type", "comparison")
    assert code == 2
    assert "types here: bridge" in err
    code, _, err = cli(*words, "--engine-url", "http://127.0.0.1:1")
    assert code == 2
    assert "name it with --model" in err
    code, _, err = cli(*words, "--topk", "3,x")
    assert code == 2
    assert "--topk takes numbers" in err


def test_ablate_takes_the_variants_of_a_model(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    folder = made.root / "worded"
    words = [
        "agent", "ablate", "--dataset", made.data, "--index", made.index, "--out", folder,
        "--variants", "1,3", "--topk", "1", "--model", "m", "--engine-url", url, "--plots", "none",
    ]  # fmt: skip
    code, out, _ = cli(*words)
    assert code == 0
    assert f"{NUMBER} questions with gold passages; variants by m, none for 0 of them" in out
    written = read_jsonl(folder / "variants.jsonl")
    assert [record["queries"] for _, record in written] == [
        [f"Who made thing{i}?", f"thing{i} maker", f"thing{i}"] for i in range(NUMBER)
    ]
    assert "up to 2 different queries" in seen.bodies[0]["messages"][0]["content"]
    passport = json.loads((folder / "run.json").read_text())
    assert passport["settings"]["engine"]["model"] == "m"
    assert passport["counts"] == {"questions": NUMBER, "without_gold": 0, "without_variants": 0}
    rows = json.loads((folder / "ablation.json").read_text())
    assert [row["mean_queries"] for row in rows] == [1.0, 3.0]
    code, _, err = cli(*words, "--engine", "vllm")
    assert code == 2
    assert "vLLM is not installed" in err or "config.json" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--engine", "echo"], "name the search engine"),
        (["--engine", "echo", "--format", "search_r1"], "holds one query a call"),
        (["--engine", "echo", "--strategy", "rag", "--variants", "3"], "one query at a time"),
        (["--engine", "echo", "--split", "test"], "no questions of any set/test"),
        (["--engine", "echo", "--index", "nowhere"], "nowhere"),
        (["--engine", "echo", "--topk", "0"], "topk must be 1"),
        (["--engine", "echo", "--index", "I", "--squeezer", "llm"], "needs --squeezer-model"),
        (["--engine", "echo", "--index", "I", "--squeezer-model", "x"], "asks no model"),
        (["--engine", "echo", "--index", "I", "--squeezer-cache", "x"], "asks no model"),
        (["--engine", "echo", "--index", "I", "--squeezer-max-tokens", "9"], "asks no model"),
        (["--engine", "echo", "--strategy", "direct", "--squeezer", "none",
          "--squeezer-model", "m"], "never searches"),
        (["--engine", "echo", "--strategy", "direct", "--squeezer", "hf"], "never searches"),
        (["--engine", "openai", "--model", "m"], "--engine-url"),
    ],
)  # fmt: skip
def test_bad_flags_are_sentences(words: list[str], reason: str, cli: Cli, made: SimpleNamespace):
    words = [str(made.index) if word == "I" else word for word in words]
    out = made.root / "e.jsonl"
    code, _, err = cli("agent", "infer", "--dataset", made.data, "--out", out, *words)
    assert code == 2
    assert reason in err
    assert not out.exists()


def test_a_sweep_goes_on_where_it_stopped(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    out = made.root / "sweep"
    words = [
        "agent", "sweep", "--dataset", made.data, "--index", made.index, "--engine", "openai",
        "--model", "m", "--engine-url", url, "--out", out, "--topk", "1,2",
        "--squeezers", "none,extractive",
    ]  # fmt: skip
    assert cli(*words, "--variants", "1")[0] == 0
    asked = len(seen.bodies)
    code, told, _ = cli(*words, "--variants", "1,2")
    assert code == 0
    assert len(seen.bodies) == 2 * asked, "finished cells were run again"
    metrics = json.loads((out / "metrics.json").read_text())
    names = [run["name"] for run in metrics["runs"]]
    assert names[:2] == ["none_k1_n1", "none_k1_n2"]
    assert len(names) == 8
    queries = {run["name"]: run["means"]["queries"] for run in metrics["runs"]}
    assert (queries["none_k1_n1"], queries["extractive_k2_n2"]) == (1, 2)
    assert all(set(run["latency"]) == {"p50", "p90", "p99", "batch_size"}
               for run in metrics["runs"])  # fmt: skip
    assert (out / "sweep.md").read_text().count("\n") == 10
    assert "| extractive | 2 | 2 | 1.000 [1.000, 1.000] |" in told
    assert {path.name for path in out.glob("*.svg")} == {
        "em_by_n.svg", "all_gold_read_by_n.svg", "em_by_documents.svg", "em_by_tokens.svg",
    }  # fmt: skip
    asked = len(seen.bodies)
    code, _, err = cli(*words, "--variants", "1,2", "--temperature", 0.5)
    assert code == 2
    assert "temperature (there 0.0, now 0.5)" in err
    assert len(seen.bodies) == asked
    assert cli(*words, "--variants", "1", "--temperature", 0.5, "--fresh")[0] == 0
    code, _, err = cli(*words, "--variants", "1", "--squeezers", "none,zip")
    assert code == 2
    assert "unknown squeezer 'zip'" in err
    code, _, err = cli(*words, "--variants", "1", "--squeezer-model", "s")
    assert code == 2
    assert "'none', 'extractive' asks no model" in err
    code, _, err = cli(*words, "--variants", "one")
    assert code == 2
    assert "--variants takes numbers" in err


def test_what_the_engine_refused_shows_in_the_sweep_and_can_be_asked_again(
    cli: Cli, made: SimpleNamespace, live
):
    url, seen = live
    words = [
        "agent", "sweep", "--dataset", made.data, "--index", made.index, "--engine", "openai",
        "--model", "m", "--engine-url", url, "--out", made.root / "sick", "--topk", 1,
        "--squeezers", "none", "--variants", 1, "--plots", "none",
    ]  # fmt: skip
    seen.sick = ["thing1"]
    assert "| 1 |\n" in cli(*words)[1]
    seen.sick = []
    asked = len(seen.bodies)
    assert "| 1 |\n" in cli(*words)[1]
    assert len(seen.bodies) == asked
    assert "| 0 |\n" in cli(*words, "--retry-failed")[1]
    assert len(seen.bodies) == asked + 2


def test_a_model_in_this_process_sweeps_to_the_same_bytes(cli: Cli, made: SimpleNamespace):
    folder = make_tiny_model(made.root / "tiny")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 4096
    (folder / "config.json").write_text(json.dumps(config))
    outs = [made.root / "one", made.root / "two"]
    for out in outs:
        code, _, err = cli(
            "agent", "sweep", "--dataset", made.data, "--index", made.index, "--model", folder,
            "--device", "cpu", "--max-tokens", 6, "--max-turns", 1, "--limit", 2, "--variants",
            "1,2", "--topk", 1, "--squeezers", "none", "--plots", "none", "--out", out,
        )  # fmt: skip
        assert code == 0, err
    for name in ("none_k1_n1", "none_k1_n2"):
        [one, two] = [(out / "cells" / f"{name}.jsonl").read_bytes() for out in outs]
        assert one == two
        assert one.count(b"\n") == 2
        assert b"prefix_violations" not in one


def test_published_answers_stand_beside_ours(cli: Cli, made: SimpleNamespace, live):
    url, _ = live
    path, out = made.root / "e.jsonl", made.root / "published"
    words = ["--dataset", made.data, "--out"]
    assert cli("agent", "infer", *words, path, "--index", made.index, "--engine", "openai",
               "--model", "m", "--engine-url", url)[0] == 0  # fmt: skip
    assert (made.root / "e.seconds.jsonl").read_text().count("\n") == NUMBER
    code, told, _ = cli("agent", "eval", path, *words, out, "--published", "--plots", "png")
    assert code == 0
    assert "latency s" in told
    assert "Search-R1 base PPO (Qwen2.5-3B) (*published*)" in told
    assert "WARNING: the protocols are not equal" in (out / "published.md").read_text()
    assert (out / "em_by_documents.png").read_bytes().startswith(b"\x89PNG")


def test_an_index_counts_by_what_is_in_it(cli: Cli, made: SimpleNamespace, live):
    url, seen = live
    moved, other = shutil.copytree(made.index, made.root / "moved"), made.root / "other"
    corpus = made.data / "corpus.jsonl"
    assert cli("index", "--corpus", corpus, "--out", other, "--k1", 1.2, "--workers", 1)[0] == 0
    out = made.root / "episodes.jsonl"
    words = [
        "agent", "infer", "--dataset", made.data, "--engine", "openai", "--model", "m",
        "--engine-url", url, "--out", out, "--index",
    ]  # fmt: skip
    assert cli(*words, made.index)[0] == 0
    asked = len(seen.bodies)
    code, _, err = cli(*words, moved)
    assert (code, len(seen.bodies)) == (0, asked)
    assert f"{out}: kept: made by the same settings" in err
    code, _, err = cli(*words, other)
    assert code == 2
    assert "was made with other settings: index.fingerprint (there content" in err
    assert cli(*words, other, "--fresh")[0] == 0
    assert len(seen.bodies) > asked


def test_scores_of_other_settings_are_refused(cli: Cli, made: SimpleNamespace, live):
    url, _ = live
    episodes, out = made.root / "episodes.jsonl", made.root / "scores"
    common = ["--dataset", made.data, "--index", made.index]
    engine = ["--engine", "openai", "--model", "m", "--engine-url", url]
    assert cli("agent", "infer", *common, *engine, "--out", episodes)[0] == 0
    words = ["agent", "eval", episodes, "--dataset", made.data, "--plots", "none", "--out"]
    assert cli(*words, out)[0] == 0
    assert cli(*words, out)[0] == 0, "the same is made again"
    code, _, err = cli(*words, out, "--max-documents", 1)
    assert code == 2
    assert "max_documents (there None, now 1)" in err
    assert cli(*words, out, "--max-documents", 1, "--fresh")[0] == 0
    ablate = ["agent", "ablate", *common, "--plots", "none", "--variants", "1,2"]
    code, _, err = cli(*ablate, "--out", out, "--fresh")
    assert code == 2
    assert "what another command made (agent eval), not agent ablate" in err
    assert cli(*ablate, "--out", made.root / "ablation")[0] == 0
    code, _, err = cli(*ablate, "--topk", "1", "--out", made.root / "ablation")
    assert code == 2
    assert "topk (there [3, 5, 10], now [1])" in err
    code, _, err = cli("infer", "--dataset", made.data, "--engine", "echo", "--out", episodes)
    assert code == 2
