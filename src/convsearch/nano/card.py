"""The model card of a nano policy: how it was made, and what was measured on it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from convsearch.files import atomic_write
from convsearch.nano.copying import TEMPERATURE, CopyReport
from convsearch.nano.settings import MAX_RESPONSE_TOKENS, NanoSettings

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---
# Nano policy for {domains}

A language model of {parameters:.1f} million parameters (Llama shape with attention biases) that
can do one thing: read a conversation and write `<think>...</think>` and `<rewrite>...</rewrite>`,
the rewrite made of words of the conversation. It is the untrained start of a run, not a finished
rewriter.

Ask it in prompt style `nano`, with at most {max_response_tokens} tokens a response: `convsearch`
reads both from the folder's `convsearch.json`.

## How it was made

Command: `{command}`

1. Tokenizer: byte-level BPE, {vocab_size} entries, lower case, every word begins with its blank;
   trained on passages and conversations of {domains}.
2. First weights: heads that go on with a copy and begin one at rare words, set by hand
   (`convsearch.nano.circuit`); all else random.
3. {steps} steps on conversations of the train split. Response = the question, then 1 to {max_spans}
   spans of the history (titles of passages and runs of content words that the prompt shows, titles
   {title_weight:g} times as likely), drawn by inverse document frequency. {random_share:.0%} of the
   examples are conversations of random words instead.
4. The output layer multiplied by {sharpness}, which makes samples surer.

No gold passage, relevance judgement, answer beyond what was said before the question, or reference
rewrite was used. Batch {batch_size}, AdamW, peak learning rate {lr}, seed {seed}, {minutes:.0f}
minutes, CPU threads: {threads}.

## What was measured

Sampled at temperature {temperature} on {num_responses} train turns: {copied_share:.2%} of the words
of its rewrites occur verbatim in the prompt, {num_malformed} of {num_responses} responses
malformed, {mean_rewrite_words:.1f} words a rewrite.
"""


def write_card(
    out: Path,
    *,
    domains: Sequence[str],
    settings: NanoSettings,
    report: CopyReport,
    num_parameters: int,
    command: str,
    minutes: float,
    threads: int,
) -> None:
    """Writes `README.md` into the policy folder."""
    values = {**asdict(settings), **asdict(report), "max_spans": settings.spans.max_spans}
    values["title_weight"] = settings.spans.title_weight
    text = _CARD.format(
        **values,
        domains=", ".join(f"`{name}`" for name in domains),
        parameters=num_parameters / 1e6,
        command=command,
        temperature=TEMPERATURE,
        max_response_tokens=MAX_RESPONSE_TOKENS,
        minutes=minutes,
        threads=threads,
    )
    with atomic_write(out / "README.md") as card:
        card.write(text)
