"""The page is built from files alone, needs nothing from outside, and escapes what it shows."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import HOSTILE, make_run_folder, make_summary

from convsearch.errors import DataError, MissingFileError
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.summary import read_summary
from convsearch.report.page import findings, write_report
from convsearch.report.run_folder import NUM_EXAMPLES, load_run

VOID = {"meta", "br", "link", "img", "input"}


class Outline(HTMLParser):
    """Collects tags and addresses; checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_run_folder(tmp_path_factory.mktemp("page") / "run")
    return write_report(folder).read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert all(address.startswith("#") for address in outline.addresses)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for address in outline.addresses:
        assert address[1:] in ids


def test_texts_are_escaped(page: str) -> None:
    assert HOSTILE not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_charts_follow_the_colours_of_the_page(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "<th>MRR@100</th>" in page
    assert page.count("<svg") == 6  # MRR, ranks, and the four curves that the log has
    assert "currentColor" in page
    assert "#010203" not in page


def test_table_holds_every_source_with_interval_and_ratio(page: str) -> None:
    rows = re.findall(r"<tr[^>]*><td title=.*?</tr>", page)
    assert [re.search(r"</span>(\w+)<", row).group(1) for row in rows] == [
        "raw", "history", "base", "sft", "grpo",
    ]  # fmt: skip
    assert "0.350 to 0.450" in rows[4]
    assert "<td>4.00</td><td>1</td>" in rows[4]


def test_examples_show_ten_conversations_and_all_sources(page: str, run_folder: Path) -> None:
    folder = load_run(run_folder)
    examples = folder.examples
    assert len({e.turn.conv_id for e in examples}) == len(examples) == NUM_EXAMPLES
    assert all(e.turn.history for e in examples)
    shown = [*folder.gains, *examples, *folder.losses]
    assert page.count("<article>") == page.count("grpo query") == len(shown)


def test_same_files_give_the_same_page(run_folder: Path) -> None:
    first = write_report(run_folder).read_text(encoding="utf-8")
    assert write_report(run_folder).read_text(encoding="utf-8") == first


def test_run_without_training_log_still_has_a_page(run_folder: Path) -> None:
    RunLayout(root=run_folder).metrics.unlink()
    assert "no training log" in write_report(run_folder).read_text()


def test_findings_say_what_was_measured_also_where_it_fell_short() -> None:
    good = "\n".join(findings(make_summary()))
    assert "4.00 times raw (0.100)" in good
    assert "do not overlap" in good
    assert "1 of 24 responses of grpo (4.2%)" in good
    stages = dict(make_summary().stages)
    stages["grpo"] = stages["raw"]
    bad = "\n".join(findings(make_summary(stages=stages)))
    assert "1.00 times raw" in bad
    assert "(0.050 to 0.150) overlap." in bad


def test_summary_survives_a_round_trip(run_folder: Path) -> None:
    path = RunLayout(root=run_folder).summary
    assert read_summary(path) == make_summary()
    record = json.loads(path.read_text())
    assert record["stages"]["grpo"]["mrr"] == 0.4
    assert record["stages"]["grpo"]["mrr_interval"] == [0.35, 0.45]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("seed"), 'field "seed" is missing'),
        (lambda s: s["stages"].pop("sft"), '"sft" is missing'),
        (lambda s: s["stages"]["raw"].update(mrr="high"), 'field "mrr" must be a number'),
        (lambda s: s["stages"]["raw"].update(mrr_interval=[1]), "must hold two numbers"),
    ],
)
def test_bad_summary_is_named(run_folder: Path, spoil, message: str) -> None:
    path = RunLayout(root=run_folder).summary
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=message) as caught:
        write_report(run_folder)
    assert "summary.json" in str(caught.value)


def test_half_a_file_and_no_file_are_sentences(run_folder: Path) -> None:
    path = RunLayout(root=run_folder).summary
    path.write_text('{"dataset": ')
    with pytest.raises(DataError, match=r"summary\.json:1: not valid JSON"):
        write_report(run_folder)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"summary\.json"):
        write_report(run_folder)
    assert not RunLayout(root=run_folder).report.exists()
