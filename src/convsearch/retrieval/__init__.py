"""What a retriever is, how it is reached over HTTP, and a small one in memory."""

from convsearch.retrieval.protocol import Retriever

__all__ = ["Retriever"]
