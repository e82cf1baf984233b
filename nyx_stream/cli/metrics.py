"""`--metrics FILE`: what a run measured, as Prometheus text in a file, for a collector of text files."""

import os
import tempfile
from importlib.util import find_spec

import typer

from nyx_stream.host import PluginHost


def check_metrics(path: str | None) -> str | None:
    """Refuses the option, before anything is run, where what it needs is not installed."""
    if path is not None and find_spec("prometheus_client") is None:
        raise typer.BadParameter("it needs prometheus-client: pip install 'nyx-sandbox[prometheus]'")
    return path


def write_metrics(host: PluginHost, path: str) -> None:
    """Writes the file whole or not at all: a collector never reads half of it. Raises `OSError`."""
    from nyx_stream.observe.prometheus import prometheus_text

    text = prometheus_text(host)
    descriptor, unfinished = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".nyx-metrics-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(unfinished, 0o644)  # mkstemp makes it 0600, and the collector is somebody else
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
