"""`convsearch hub`: pinned downloads from the Hugging Face hub, and models with cards to it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from convsearch.cli.help import Group
from convsearch.errors import ConfigError
from convsearch.hub.catalogue import CATALOGUE, HubEntry, chosen_entries
from convsearch.hub.lock import LOCK_NAME
from convsearch.prompts.asking import read_asking

app = typer.Typer(
    cls=Group,
    help="Fetch what the reproduction needs from the Hugging Face hub, or publish a model there.",
    no_args_is_help=True,
)


@app.command("list")
def list_entries() -> None:
    """The names that "convsearch hub download" knows."""
    for entry in CATALOGUE:
        kind = "datasets/" if entry.repo_type == "dataset" else ""
        typer.echo(f"{entry.group:<9} {entry.name:<38} {kind}{entry.repo_id}  ({entry.about})")


@app.command("download")
def download_entries(
    names: Annotated[list[str], typer.Argument(help='sets or names of "hub list", or OWNER/NAME')],
    to: Annotated[Path, typer.Option(help="folder that gets one folder for each")] = Path(
        "data/models"
    ),
    lock: Annotated[
        Path | None, typer.Option(help=f"file of pinned revisions; TO/{LOCK_NAME} if not given")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="compare the bytes of what is there, not only sizes")
    ] = False,
) -> None:
    """Download at the revisions of the lock file; what has none is pinned to the newest one."""
    from convsearch.hub.download import download

    def say(entry: HubEntry, revision: str) -> None:
        print(f"{entry.repo_id} at {revision}", file=sys.stderr)

    lock_path = lock or to / LOCK_NAME
    for done in download(chosen_entries(names), to, lock_path, verify=verify, on_entry=say):
        how = f"{done.fetched} fetched" if done.fetched else "all there"
        typer.echo(
            f"{done.folder}: {done.num_files} files, {done.num_bytes / 1e9:.2f} GB ({how}), "
            f"revision {done.revision[:12]}"
        )
    typer.echo(f"revisions in {lock_path}")


@app.command("push")
def push_model(
    model: Annotated[Path, typer.Option(help="model folder, as of grpo, sft or merge")],
    repo: Annotated[str, typer.Option(help="repository, OWNER/NAME")],
    evaluation: Annotated[
        list[Path] | None, typer.Option(help='folder of "convsearch eval"; may be repeated')
    ] = None,
    passport: Annotated[
        Path | None, typer.Option(help="run.json of the training; else that of the model")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="a card of your own (README.md), instead of a written one")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="hub name of the first model, if the passports have a path")
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="licence identifier for the card")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="folder for card and file list; MODEL.push if not given")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="for everyone to see")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="write card and file list, send nothing")
    ] = False,
) -> None:
    """Publish a model with a card written from its passports; the token is in HF_TOKEN."""
    from convsearch.hub.card import model_card, read_card, read_evaluation
    from convsearch.hub.provenance import read_provenance
    from convsearch.hub.push import check_repo_id, push, write_plan

    check_repo_id(repo)
    if card is not None:
        if evaluation or passport or base_model or license_id:
            raise ConfigError(
                "--card is sent as it is: leave out --evaluation, --passport, --base-model and "
                "--license, or have a card written"
            )
        text = read_card(card)
    else:
        text = model_card(
            repo,
            read_provenance(model, passport),
            [read_evaluation(folder) for folder in evaluation or []],
            base_model=base_model,
            license_id=license_id,
            asking=read_asking(model),
        )
    folder = plan or model.with_name(f"{model.name}.push")
    files = write_plan(folder, text, model)
    for file in files:
        typer.echo(f"{file.size:>14}  {file.name}")
    if dry_run:
        typer.echo(f"{folder}: card and file list; nothing was sent")
        return
    typer.echo(f"{repo}: commit {push(repo, files, public=public)}")
