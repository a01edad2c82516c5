"""The sampler of `hf_cpu` against the model run in the plainest way."""

from collections import Counter

import torch
from convsearch_verl.generation import Request, Sampled, Vocabulary, sample_batch
from transformers import PreTrainedModel

EOS, PAD = 2, 0
PROMPTS = [(5, 6, 7, 8, 9), (10, 11), (12, 13, 14)]
OPEN_ENDED = Vocabulary(size=300, eos_ids=(EOS,), pad_id=PAD, ignore_eos=True)
LOG_PROB_ERROR = 2e-5
"""Float32, two ways of summing."""


def request(prompt: int, *, max_tokens: int = 6, temperature: float = 1.0) -> Request:
    return Request(prompt_ids=PROMPTS[prompt], max_tokens=max_tokens, temperature=temperature)


def draw(
    model: PreTrainedModel,
    requests: list[Request],
    seed: int = 0,
    vocabulary: Vocabulary = OPEN_ENDED,
) -> list[Sampled]:
    return sample_batch(model, requests, vocabulary, torch.Generator().manual_seed(seed))


@torch.no_grad()
def next_log_probs(
    model: PreTrainedModel, ids: list[int], temperature: float = 1.0
) -> torch.Tensor:
    logits = model(torch.tensor([ids])).logits[0, -1, : OPEN_ENDED.size]
    return torch.log_softmax(logits / temperature, -1)


def test_log_probs_are_those_of_the_model_for_uneven_groups_and_lengths(
    model: PreTrainedModel,
) -> None:
    requests = [request(0)] * 3 + [request(1, max_tokens=2)] + [request(2, temperature=0.5)] * 2
    sampled = draw(model, requests)
    assert [len(s.token_ids) for s in sampled] == [6, 6, 6, 2, 6, 6]
    for asked, got in zip(requests, sampled, strict=True):
        ids = list(asked.prompt_ids)
        for token, log_prob in zip(got.token_ids, got.log_probs, strict=True):
            expected = next_log_probs(model, ids, asked.temperature)[token]
            assert abs(float(expected) - log_prob) < LOG_PROB_ERROR
            ids.append(token)


def test_temperature_zero_takes_the_most_likely_token(model: PreTrainedModel) -> None:
    got = draw(model, [request(0, temperature=0.0), request(1)])[0]
    ids = list(PROMPTS[0])
    for token in got.token_ids:
        assert token == int(next_log_probs(model, ids).argmax())
        ids.append(token)


def test_roll_outs_of_one_prompt_differ_and_follow_the_distribution(model: PreTrainedModel) -> None:
    num = 4000
    sampled = draw(model, [request(1, max_tokens=1, temperature=0.2)] * num)
    counts = Counter(s.token_ids[0] for s in sampled)
    probs = next_log_probs(model, list(PROMPTS[1]), 0.2).exp()
    assert len(counts) > 10
    for token, count in counts.most_common(5):
        p = float(probs[token])
        assert abs(count / num - p) < 5 * (p * (1 - p) / num) ** 0.5


def test_the_order_of_requests_does_not_matter(model: PreTrainedModel) -> None:
    requests = [request(0), request(1), request(0), request(2)]
    one = draw(model, requests)
    other = draw(model, requests[::-1])[::-1]
    assert sorted(s.token_ids for s in one) == sorted(s.token_ids for s in other)
    assert one[1].token_ids == other[1].token_ids
    assert draw(model, requests, seed=1)[1].token_ids != one[1].token_ids


def test_a_response_ends_with_the_end_token(model: PreTrainedModel) -> None:
    every_token_ends = Vocabulary(size=300, eos_ids=tuple(range(300)), pad_id=PAD)
    assert [
        len(s.token_ids) for s in draw(model, [request(0)] * 2, vocabulary=every_token_ends)
    ] == [
        1,
        1,
    ]


def test_tokens_beyond_the_tokenizer_are_never_drawn(model: PreTrainedModel) -> None:
    narrow = Vocabulary(size=4, eos_ids=(EOS,), pad_id=PAD, ignore_eos=True)
    tokens = {
        t for s in draw(model, [request(0, max_tokens=40)], vocabulary=narrow) for t in s.token_ids
    }
    assert tokens
    assert max(tokens) < narrow.size
