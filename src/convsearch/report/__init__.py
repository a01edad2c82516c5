"""The report of one run: a self-contained page made from the files of its folder."""
