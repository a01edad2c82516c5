"""Hydra overrides as text: the one way this project tells verl what to do."""

from pathlib import Path

Value = str | int | float | bool | Path | None | list[str]


def override(key: str, value: Value) -> str:
    """`key=value` in Hydra's grammar, safe for paths with blanks and signs."""
    return f"{key}={_render(value)}"


def _render(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_render(v) for v in value)}]"
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
