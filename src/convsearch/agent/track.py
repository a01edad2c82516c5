"""The tokens of an episode and who wrote them: what training masks, kept by ids and never by text.

Token in, token out: a turn's prompt is the ids of everything before it, to which only ids are
appended. Where another program builds the prompts (a chat template that drops old thoughts, a
server that takes text), `extend_to` checks that the new prompt begins with the old ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class TokenTrack:
    """Ids of one episode and its mask. Immutable."""

    ids: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()
    """True exactly on ids that the policy sampled, position by position."""
    num_prompt: int = 0
    """Ids of the opening prompt."""
    violations: int = 0
    """Prompts that did not begin with the ids before them; what was sampled earlier is masked."""

    def sampled(self, ids: Sequence[int]) -> "TokenTrack":
        """With ids that the policy drew."""
        return self._with(ids, True)

    def given(self, ids: Sequence[int]) -> "TokenTrack":
        """With ids that came from outside: prompts, results, frames of messages."""
        return self._with(ids, False)

    def extend_to(self, prompt: Sequence[int]) -> "TokenTrack":
        """The track whose ids are this prompt.

        The prompt should begin with all ids so far; what it adds is given. If it does not, the ids
        on which the policy acted are gone: the new prompt stands alone, nothing in it counts as
        sampled, and the violation is counted.
        """
        if tuple(prompt[: len(self.ids)]) == self.ids:
            return self.given(prompt[len(self.ids) :])
        return TokenTrack(violations=self.violations + 1).given(prompt)

    def _with(self, ids: Sequence[int], by_policy: bool) -> "TokenTrack":
        return replace(
            self,
            ids=(*self.ids, *ids),
            mask=(*self.mask, *(by_policy for _ in ids)),
            num_prompt=self.num_prompt if self.ids else len(ids),
        )
