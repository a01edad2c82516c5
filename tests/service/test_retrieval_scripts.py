"""The scripts build and serve a real index, here of a corpus that fits into a test."""

import json
import os
import signal
import subprocess
from pathlib import Path

from grpo_case import write_case
from live_server import ROOT, started

from convsearch.retrieval.client import RetrieverClient


def test_build_and_serve(tmp_path: Path) -> None:
    write_case(tmp_path)
    index = tmp_path / "index"
    where = {"CORPUS": str(tmp_path / "corpus.jsonl"), "INDEX": str(index)}
    build = ["bash", "scripts/build_index_qrecc_bm25.sh", "--workers", "1"]
    subprocess.run(
        build, cwd=ROOT, env={**os.environ, **where}, check=True, capture_output=True, text=True
    )
    manifest = json.loads((index / "manifest.json").read_text())
    assert (manifest["k1"], manifest["b"]) == (0.82, 0.68)
    env = ["env", f"INDEX={index}", f"QRELS={tmp_path / 'qrels.trec'}", "PORT=0"]
    with started([*env, "bash", "scripts/serve_qrecc_bm25.sh"]) as (server, url):
        with RetrieverClient(url) as client:
            passage = json.loads((tmp_path / "corpus.jsonl").open().readline())
            hits = client.search([passage["text"]], 3)[0]
        assert hits[0].doc_id == passage["doc_id"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
