"""Writes `openapi.json`, the committed contract of the service. Run it after changing the wire:

python3 -m retriever_server.openapi
"""

import json
from pathlib import Path

from convsearch.files import atomic_write
from convsearch.retrieval.memory import InMemoryRetriever
from convsearch.types import Passage
from retriever_server.app import create_app

PATH = Path(__file__).with_name("openapi.json")


def live_openapi() -> dict[str, object]:
    """The schema of the service as it is; it does not depend on the engine."""
    return create_app(InMemoryRetriever([Passage(doc_id="d", title="", text="word")])).openapi()


if __name__ == "__main__":
    with atomic_write(PATH) as out:
        out.write(json.dumps(live_openapi(), indent=2, sort_keys=True) + "\n")
