"""Help that can be read anywhere: no boxes, so that no option's name is cut at 80 columns or in a
pipe, and the many options of a training under headings."""

from collections.abc import Mapping, Sequence

from typer.core import TyperCommand, TyperGroup

REST = "Options"
"""Heading of what stands under no other."""


class Group(TyperGroup):
    """Commands with the whole first sentence of what they do."""

    def format_commands(self, ctx, formatter) -> None:  # of types that some versions vendor
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(limit=1000))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def under_headings(headings: Mapping[str, Sequence[str]]) -> type[TyperCommand]:
    """A kind of command whose help lists its options under these headings, in their order.

    headings: heading -> names of parameters; what is not named comes last.
    """

    class Command(TyperCommand):
        def format_options(self, ctx, formatter) -> None:  # of types that some versions vendor
            heading_of = {name: head for head, names in headings.items() for name in names}
            sections: dict[str, list[tuple[str, str]]] = {head: [] for head in (*headings, REST)}
            for param in self.get_params(ctx):
                record = param.get_help_record(ctx)
                if record is not None:
                    sections[heading_of.get(param.name or "", REST)].append(record)
            for heading, records in sections.items():
                if records:
                    with formatter.section(heading):
                        formatter.write_dl(records)

    return Command
