"""A run keeps what is finished, redoes what changed, and takes up what was interrupted."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from convsearch.errors import ConfigError, StageError
from convsearch.pipeline.layout import RunLayout
from convsearch.pipeline.runner import Progress, Stage, read_finished, run_stages


class Recorder:
    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kept: list[str] = []

    def started(self, stage: str, number: int, total: int) -> None:
        self.ran.append(stage)

    def advanced(self, stage: str, done: int, total: int, what: str) -> None:
        pass

    def ended(self, stage: str, seconds: float, counts: object, *, reused: bool) -> None:
        if reused:
            self.kept.append(stage)


def make_stages(layout: RunLayout, *, middle: int = 1, source: Path | None = None) -> list[Stage]:
    """first -> middle -> last, and a side stage that needs only the first; each appends a line."""

    def stage(name: str, needs: tuple[str, ...], **settings: object) -> Stage:
        folder = layout.root / name
        done = folder / "done.txt"

        def run(progress: Progress) -> dict[str, int]:
            folder.mkdir(exist_ok=True)
            with done.open("a") as out:
                out.write("ran\n")
            progress(1, 1, "")
            return {"lines": len(done.read_text().splitlines())}

        return Stage(
            name=name,
            run=run,
            settings=settings,
            needs=needs,
            folders=(folder,),
            outputs=(done,),
            inputs=(source,) if source is not None and name == "first" else (),
        )

    return [
        stage("first", ()),
        stage("middle", ("first",), value=middle),
        stage("side", ("first",)),
        stage("last", ("middle",)),
    ]


def run(stages: list[Stage], layout: RunLayout, *, fresh: bool = False) -> Recorder:
    recorder = Recorder()
    run_stages(stages, layout, recorder, services=ExitStack(), fresh=fresh, seed=0)
    return recorder


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(root=tmp_path / "run")


def test_second_run_keeps_everything(layout: RunLayout) -> None:
    assert run(make_stages(layout), layout).ran == ["first", "middle", "side", "last"]
    again = run(make_stages(layout), layout)
    assert again.ran == []
    assert again.kept == ["first", "middle", "side", "last"]


def test_changed_settings_redo_the_stage_and_all_that_depends_on_it(layout: RunLayout) -> None:
    run(make_stages(layout), layout)
    assert run(make_stages(layout, middle=2), layout).ran == ["middle", "last"]
    assert (layout.root / "middle" / "done.txt").read_text() == "ran\n"  # afresh, not on top


def test_changed_input_file_redoes_all_after_it(layout: RunLayout, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("one")
    run(make_stages(layout, source=source), layout)
    source.write_text("two")
    assert run(make_stages(layout, source=source), layout).ran == [
        "first",
        "middle",
        "side",
        "last",
    ]


def test_lost_output_is_made_again_with_all_that_depends_on_it(layout: RunLayout) -> None:
    run(make_stages(layout), layout)
    (layout.root / "middle" / "done.txt").unlink()
    assert run(make_stages(layout), layout).ran == ["middle", "last"]


def test_fresh_redoes_everything(layout: RunLayout) -> None:
    run(make_stages(layout), layout)
    assert run(make_stages(layout), layout, fresh=True).ran == ["first", "middle", "side", "last"]
    assert (layout.root / "first" / "done.txt").read_text() == "ran\n"


@pytest.mark.parametrize(("middle", "expected"), [(1, "partial\nran\n"), (2, "ran\n")])
def test_interrupted_stage_goes_on_unless_its_settings_changed(
    layout: RunLayout, middle: int, expected: str
) -> None:
    stages = make_stages(layout)
    folder = layout.root / "middle"

    def interrupted(progress: Progress) -> dict[str, int]:
        folder.mkdir()
        (folder / "done.txt").write_text("partial\n")
        raise KeyboardInterrupt

    broken = Stage(
        name="middle",
        run=interrupted,
        settings={"value": 1},
        needs=("first",),
        folders=(folder,),
        outputs=(folder / "done.txt",),
    )
    with pytest.raises(KeyboardInterrupt):
        run([stages[0], broken, *stages[2:]], layout)
    assert run(make_stages(layout, middle=middle), layout).ran == ["middle", "side", "last"]
    assert (folder / "done.txt").read_text() == expected


def test_service_is_started_only_where_a_stage_needs_it(layout: RunLayout) -> None:
    started = []
    services = ExitStack()

    def start(progress: Progress) -> dict[str, int]:
        started.append("up")
        services.callback(started.append, "down")
        return {}

    service = Stage(name="service", run=start, settings={}, is_service=True)
    first, middle, side, last = make_stages(layout)
    middle = Stage(
        name="middle",
        run=middle.run,
        settings=middle.settings,
        needs=("first", "service"),
        folders=middle.folders,
        outputs=middle.outputs,
    )
    stages = [first, service, middle, side, last]
    for _ in range(2):
        run_stages(stages, layout, Recorder(), services=services, fresh=False, seed=0)
    assert started == ["up", "down"]


def test_stage_without_its_output_is_an_error_that_names_it(layout: RunLayout) -> None:
    lying = Stage(name="x", run=lambda _: {}, settings={}, outputs=(layout.root / "never.txt",))
    with pytest.raises(StageError, match=r"never\.txt"):
        run([lying], layout)
    assert not layout.passport("x").exists()


def test_folder_with_other_files_is_refused_and_left_alone(layout: RunLayout) -> None:
    layout.root.mkdir()
    (layout.root / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="no run of convsearch"):
        run(make_stages(layout), layout, fresh=True)
    assert (layout.root / "thesis.tex").read_text() == "mine"


def test_two_runs_in_one_folder_are_refused(layout: RunLayout) -> None:
    def nested(progress: Progress) -> dict[str, int]:
        run(make_stages(layout), layout)
        return {}

    with pytest.raises(ConfigError, match="another process"):
        run([Stage(name="outer", run=nested, settings={})], layout)


def test_passport_holds_settings_seconds_and_counts(layout: RunLayout) -> None:
    run(make_stages(layout, middle=7), layout)
    passport = json.loads(layout.passport("middle").read_text())
    assert passport["settings"]["value"] == 7
    assert passport["counts"] == {"lines": 1}
    finished = read_finished(layout, "middle")
    assert finished.peak_rss_mb > 1
    assert finished.seconds >= 0
