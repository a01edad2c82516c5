"""Retrieved and squeezed text is data: nothing in it may pass for a tag or a chat token.

After `escape` a text holds no ASCII angle bracket at all, nor a character that a normalising
tokenizer would turn into one, so no tag of ours and no `<|...|>` token can be formed, within one
text or across two that stand side by side. Bracketed control words of other chat formats
(`[INST]`) lose their opening bracket.
"""

import re

_CONTROL_WORDS = (
    "INST", "TOOL_CALLS", "TOOL_RESULTS", "TOOL_CONTENT", "AVAILABLE_TOOLS", "SYSTEM_PROMPT",
    "MODEL_SETTINGS", "IMG", "IMG_BREAK", "IMG_END", "AUDIO", "BEGIN_AUDIO", "PREFIX", "SUFFIX",
    "MIDDLE", "THINK", "ARGS", "CALL_ID", "BOS", "EOS", "EOT", "UNK", "PAD", "CLS", "SEP", "MASK",
    "[gs]MASK", "start_header_id", "end_header_id",
)  # fmt: skip
"""Special tokens in square brackets of Mistral, GLM, Kimi and BERT; patterns, in any case."""
_BRACKETED = re.compile(
    rf"[\[\uff3b](?=\s*/?\s*(?:{'|'.join(_CONTROL_WORDS)})\s*[\]\uff3d])", re.IGNORECASE
)
_LESS = (
    "<\u226e\ufe64\uff1c"  # what Unicode decomposes to a bracket
    "\u2039\u2329\u3008\u27e8\u276c\u276e\u2770\u02c2\u1438\u16b2\U0001d236"  # what looks like one
)
_GREATER = ">\u226f\ufe65\uff1e\u203a\u232a\u3009\u27e9\u276d\u276f\u2771\u02c3\u1433"
_BRACKETS = str.maketrans(dict.fromkeys(_LESS, "&lt;") | dict.fromkeys(_GREATER, "&gt;"))
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters without a shape or a use in a word; joiners, which some scripts need, stay."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def escape(text: str) -> str:
    """`text` without anything that could be read as markup; the words stay as they are.

    Angle brackets of any width become `&lt;` and `&gt;`, invisible characters go, control
    characters become blanks (line ends and tabs stay). A second time changes nothing more.
    """
    shown = _INVISIBLE.sub("", text.replace("\r\n", "\n"))
    return _BRACKETED.sub("(", _CONTROLS.sub(" ", shown).translate(_BRACKETS))


def unescape(text: str) -> str:
    """The brackets of an answer that a model copied from escaped text."""
    return text.replace("&lt;", "<").replace("&gt;", ">")
