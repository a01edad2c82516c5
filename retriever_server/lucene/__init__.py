"""Lucene in this process: a Java VM, a few Java classes of our own, and the border between."""
