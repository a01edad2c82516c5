"""`python -m convsearch.cli`: the command line where the installed script is not on the path."""

from convsearch.cli.main import main

main()
