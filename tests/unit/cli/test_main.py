"""The command line as a whole."""

from typer.testing import CliRunner

from convsearch.cli.main import FLOW, app


def test_help_lists_every_command_in_the_order_of_the_data() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100", "TERM": "dumb"}).output
    listed = [line.strip("│ ").split()[0] for line in shown.splitlines() if line.startswith("│ ")]
    assert [name for name in listed if name in FLOW] == list(FLOW)
