"""Sorts the pages into four parts and the examples. In a part, the pages listed here come first, then all others."""

import os
from typing import Any

_PARTS = {
    "Tutorial": ("tutorial", ["first-plugin.md"]),
    "How to": (
        "how-to",
        [
            "write-a-policy.md",
            "embed-in-fastapi.md",
            "test-a-plugin.md",
            "limit-and-revoke.md",
            "change-at-run-time.md",
            "approve-permissions.md",
            "read-the-audit-log.md",
            "observe.md",
            "reduce-event-loop-lag.md",
        ],
    ),
    "Reference": ("reference", ["command-line.md", "rules.md", "policy-file.md", "manifest-file.md", "host-file.md"]),
    "Explanation": ("explanation", ["design.md", "threat-model.md"]),
}
_EXAMPLES = "examples"


def on_config(config: Any) -> Any:
    """Sets the navigation; mkdocs calls this before it reads the pages."""
    config["nav"] = [{"Nyx": "index.md"}, *_parts(config["docs_dir"])]
    return config


def _parts(docs: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for title, (folder, first) in _PARTS.items():
        present = sorted(name for name in os.listdir(os.path.join(docs, folder)) if name.endswith(".md"))
        names = [*(name for name in first if name in present), *(name for name in present if name not in first)]
        parts.append({title: [f"{folder}/{name}" for name in names]})
    examples = sorted(entry.name for entry in os.scandir(os.path.join(docs, _EXAMPLES)) if entry.is_dir())
    parts.append({"Examples": [f"{_EXAMPLES}/{name}/README.md" for name in examples]})
    return parts
