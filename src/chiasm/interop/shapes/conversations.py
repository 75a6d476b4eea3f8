"""FastChat's conversations, which checkpoints bring along in a conversation.py: read as data, not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chiasm.errors import CheckpointError, nearest, reason
from chiasm.language.turns import IMAGE_LINES

LARGEST = 1 << 20  # bytes of a conversation.py
STYLE = "MPT"  # of the conversations of InternVL: a mark of the role, the message, and what ends it
NEEDED = ("system_template", "roles", "sep", "sep_style")
INTERNVL = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
INTERNVL_2_5 = (
    "你是书生·万象，英文名是InternVL，"
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
CHATML: dict[str, Any] = {
    "system_template": "<|im_start|>system\n{system_message}",
    "system_message": INTERNVL,
    "roles": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    "sep_style": STYLE,
    "sep": "<|im_end|>",
}
# As InternVL-2's and -2.5's code has them, for folders without it.
KNOWN: dict[str, dict[str, Any]] = {
    "Hermes-2": CHATML,
    "internlm2-chat": CHATML,
    "internvl2_5": {**CHATML, "system_message": INTERNVL_2_5, "sep": "<|im_end|>\n"},
    "phi3-chat": {
        **CHATML,
        "system_template": "<|system|>\n{system_message}",
        "roles": ("<|user|>\n", "<|assistant|>\n"),
        "sep": "<|end|>",
    },
}


def conversation_template(name: Any, folder: Path, *, begins: bool) -> str:
    """The chat template (Jinja) of the conversation `name`; a line ends behind an image, as InternVL's code asks.

    begins: the tokenizer puts its first token before every text.
    Raises CheckpointError for a name that neither the folder's conversation.py nor we have, or another style.
    """
    own = {each.get("name"): each for each in _read(folder / "conversation.py")}
    conversations: dict[Any, dict[str, Any]] = {**KNOWN, **own}
    if name not in conversations:
        raise CheckpointError(
            f"{folder}: its config's template is {name!r}, a conversation that neither its conversation.py nor "
            f"Chiasm has{nearest(str(name), [each for each in conversations if each])}"
        )
    return _template(
        {"system_message": "", **conversations[name]}, f"{folder}: conversation {name!r}", begins
    )


def _template(conversation: Mapping[str, Any], where: str, begins: bool) -> str:
    missing = [key for key in NEEDED if key not in conversation]
    if missing or conversation["sep_style"] != STYLE:
        lacks = f"has no {', '.join(missing)}" if missing else f"is of style {conversation['sep_style']}"
        raise CheckpointError(f"{where} {lacks}; conversations of style {STYLE} alone are known")
    user, assistant = conversation["roles"]
    before, _, behind = conversation["system_template"].partition("{system_message}")
    end = _literal(conversation["sep"])

    def system(message: str) -> str:
        return f"{{{{ {_literal(before)} + {message} + {_literal(behind)} + {end} }}}}"

    return (
        ("{{ bos_token }}" if begins else "")
        + "{% if not messages or messages[0]['role'] != 'system' %}"
        + system(_literal(conversation["system_message"]))
        + "{% endif %}{% for message in messages %}{% if message['role'] == 'system' %}"
        + system("message['content']")
        + f"{{% else %}}{{{{ ({_literal(user)} if message['role'] == 'user' else {_literal(assistant)}) "
        + f"+ {IMAGE_LINES} + {end} }}}}{{% endif %}}{{% endfor %}}"
        + f"{{% if add_generation_prompt %}}{{{{ {_literal(assistant)} }}}}{{% endif %}}"
    )


def _literal(text: str) -> str:
    """A text as Jinja writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The arguments of each `Conversation(...)` in a file of Python, which is not run."""
    if not path.is_file():
        return
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path} is larger than {LARGEST:,} bytes, which no conversation.py is")
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path} is not Python: {reason(error)}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Conversation":
            values = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
            yield {key: value for key, value in values.items() if value is not None}


def _value(node: ast.expr) -> Any:
    """A literal, the last name of `SeparatorStyle.MPT`, or None for what is neither."""
    if isinstance(node, ast.Attribute):
        return node.attr
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
