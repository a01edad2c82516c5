"""The tables of the paper as commands: what makes them, what they should show, what runs here."""
