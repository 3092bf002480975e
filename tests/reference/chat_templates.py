#!/usr/bin/env python3
"""What transformers renders: chat_templates.py TEMPLATES_DIR DIGESTS.json

Renders a fixed set of chats through every *.jinja file of the folder with transformers' own
`render_jinja_template` (the function behind `apply_chat_template`), with the clock held still. DIGESTS.json holds
the chats and, by template, one digest a rendering (null: refused), so that nothing of the templates is in it. The
texts themselves go to TEMPLATES_DIR/expected.json: with them the test says where two renderings part.
Read by `every_real_template_renders_as_in_transformers` in src/data/template/conformance.rs.
"""

import datetime
import json
import pathlib
import sys

import transformers
from transformers.utils import chat_template_utils

# 2026-11-24 08:05:09 UTC
NOW = 1795507509


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


chat_template_utils.datetime = Clock

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather \u00e4t a <place> & 'time'.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "City, e.g. \"K\u00f6ln\""},
                    "days": {"type": "array", "items": {"type": "integer"}, "description": "Days from today"},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "exact": {"type": "boolean", "default": False},
                    "tolerance": {"type": "number", "default": 1e-05},
                },
                "required": ["place"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
            "return": {"type": "string", "description": "ISO 8601"},
        },
    },
]

SYSTEM = {"role": "system", "content": "You are a careful assistant.\nAnswer briefly."}
ASK = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "2 + 2 is 4."}
MORE = {"role": "user", "content": "  And <b>\"twice\"</b> that? \u00bfs\u00ed? \U0001f980\n"}
LAST = {"role": "assistant", "content": "Eight.\n\n- 8\n- VIII "}
THOUGHT = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
REASONED = {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "type": "function",
            "id": "call00001",
            "function": {"name": "weather", "arguments": {"place": "K\u00f6ln", "days": [0, 1], "exact": True}},
        }
    ],
}
CALL_TEXT = {**CALL, "content": "Let me look."}
RESULT = {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "{\"sky\": \"grey\", \"t\": 4.5}"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]}

CHATS = {
    "single turn": {"messages": [ASK]},
    "system": {"messages": [SYSTEM, ASK]},
    "answered": {"messages": [ASK, ANSWER]},
    "several turns": {"messages": [ASK, ANSWER, MORE, LAST]},
    "several turns, system": {"messages": [SYSTEM, ASK, ANSWER, MORE, LAST]},
    "thinking in the text": {"messages": [SYSTEM, ASK, THOUGHT, MORE, THOUGHT]},
    "thinking apart": {"messages": [ASK, REASONED, MORE, REASONED]},
    "thinking off": {"messages": [ASK, THOUGHT, MORE], "kwargs": {"enable_thinking": False}},
    "thinking on": {"messages": [SYSTEM, ASK], "kwargs": {"enable_thinking": True}},
    "tools": {"messages": [ASK], "tools": TOOLS},
    "tools, system": {"messages": [SYSTEM, ASK], "tools": TOOLS},
    "tool call": {"messages": [SYSTEM, ASK, CALL, RESULT, LAST], "tools": TOOLS},
    "tool call with text": {"messages": [ASK, CALL_TEXT, RESULT], "tools": TOOLS},
    "tool call without tools": {"messages": [ASK, CALL_TEXT, RESULT, LAST, MORE]},
    "parts": {"messages": [SYSTEM, PARTS, ANSWER]},
    "assistant first": {"messages": [ANSWER, ASK]},
    "two users": {"messages": [ASK, MORE]},
}


def render(template, chat, add_generation_prompt):
    rendered, spans = chat_template_utils.render_jinja_template(
        conversations=[chat["messages"]],
        tools=chat.get("tools"),
        chat_template=template,
        add_generation_prompt=add_generation_prompt,
        return_assistant_tokens_mask="generation %}" in template or "generation -%}" in template,
        **{**SPECIAL, **chat.get("kwargs", {})},
    )
    return {"text": rendered[0], **({"spans": spans[0]} if spans else {})}


def digest(rendering):
    """FNV-1a, 64 bits, of the text and of the spans as "start-end," after it."""
    spans = "".join(f"{start}-{end}," for start, end in rendering.get("spans", []))
    value = 0xCBF29CE484222325
    for byte in (rendering["text"] + spans).encode():
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def main(folder, out):
    texts, digests = {}, {}
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        texts[path.name], digests[path.name] = [], []
        for chat in CHATS.values():
            for add_generation_prompt in (False, True):
                try:
                    rendering = render(template, chat, add_generation_prompt)
                    digests[path.name].append(digest(rendering))
                except Exception as error:
                    rendering = {"error": f"{type(error).__name__}: {error}"}
                    digests[path.name].append(None)
                texts[path.name].append(rendering)
    with open(pathlib.Path(folder) / "expected.json", "w", encoding="utf-8") as file:
        json.dump(texts, file, ensure_ascii=False, indent=0)
    made_with = f"transformers {transformers.__version__}, templates of llama-cpp-python 0.3.36"
    head = {"made_with": made_with, "now": NOW, "special": SPECIAL}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    # In escapes, or an editor might tidy the white space and the emoji that are there on purpose.
    chats = ",\n".join(f"  {json.dumps(name)}: {json.dumps(chat)}" for name, chat in CHATS.items())
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in digests.items())
    lines += [f'"chats": {{\n{chats}\n}}', f'"templates": {{\n{rows}\n}}']
    pathlib.Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


main(*sys.argv[1:])
