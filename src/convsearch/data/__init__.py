"""Data sets as folders of four files: turns, corpus, qrels, passport."""
