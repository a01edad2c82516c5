"""A rewriter as a service: `/v1/chat/completions` as OpenAI's clients speak it, and `/rewrite`."""
