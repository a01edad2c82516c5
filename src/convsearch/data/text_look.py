"""What is odd about the texts of a corpus, counted while they stream by: nothing is changed."""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from convsearch.passages import repeated
from convsearch.types import Passage

_HTML = re.compile(
    r"</?(?:a|b|body|br|div|em|h[1-6]|head|html|i|img|li|ol|p|pre|script|span|strong|style|table"
    r"|td|th|tr|ul)(?:\s[^<>]*)?/?>|&(?:nbsp|amp|lt|gt|quot|#\d+);",
    re.IGNORECASE,
)
HTML, REPEATED, BLANK = "num_html_passages", "num_repeated_texts", "num_blank_passages"
"""Names of the counts."""


@dataclass(kw_only=True)
class TextLook:
    """Counts of one reading; holds eight bytes a passage."""

    num_html: int = 0
    """Passages with a tag or an entity of HTML."""
    num_blank: int = 0
    """Passages without any text."""
    _hashes: "array[int]" = field(default_factory=lambda: array("q"))

    def watch(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """The same passages; counts them from the beginning."""
        self.num_html = self.num_blank = 0
        self._hashes = array("q")
        for passage in passages:
            text = passage.text.strip()
            if text:
                self._hashes.append(hash(text))
            self.num_blank += not text
            self.num_html += _HTML.search(text) is not None
            yield passage

    @property
    def num_repeated(self) -> int:
        """Texts that more than one passage has."""
        return len(repeated(array("q", self._hashes)))

    def counts(self) -> dict[str, int]:
        """For the passport."""
        return {HTML: self.num_html, REPEATED: self.num_repeated, BLANK: self.num_blank}


def look_line(counts: Mapping[str, int]) -> str:
    """One line for people; empty where nothing was counted."""
    if HTML not in counts:
        return ""
    html, twice, blank = counts[HTML], counts[REPEATED], counts[BLANK]
    line = (
        f"texts: {html:,} {'passage looks' if html == 1 else 'passages look'} like HTML, "
        f"{twice:,} {'text occurs' if twice == 1 else 'texts occur'} twice or more, {blank:,} empty"
    )
    if html:
        line += "; tags and scripts are indexed as words: strip them first"
    return line
