"""ConvSearch: language models that learn to search from the rank of the right passage."""

__version__ = "0.1.0"
