"""Plugin folders written for one test."""

from pathlib import Path
from textwrap import dedent


def write_plugin(
    folder: Path,
    code: str,
    *,
    plugin_id: str | None = None,
    permissions: str = "",
    limits: str = "",
    entry: str = "main:Main",
    **files: str,
) -> Path:
    """Writes a plugin whose entry module is `main.py`; `files` are more modules, by name, `__` standing for `/`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = f'id = "{plugin_id or folder.name}"\nversion = "1.0"\nentry = "{entry}"\n'
    manifest += f"[permissions]\n{dedent(permissions)}\n[limits]\n{dedent(limits)}\n"
    (folder / "plugin.toml").write_text(manifest)
    (folder / "main.py").write_text("from nyx_stream import Plugin, export\n" + dedent(code))
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder
