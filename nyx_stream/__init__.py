"""An asyncio framework for running other people's plugins with exactly the capabilities they were granted."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nyx_stream.host import Handle, PluginHost
    from nyx_stream.plugin import Plugin, export

    __version__: str

__all__ = ["Handle", "Plugin", "PluginHost", "__version__", "export"]


def __getattr__(name: str) -> Any:
    # Imported on first use: a plugin's module pays for `Plugin` and not for the host.
    if name in ("Plugin", "export"):
        from nyx_stream import plugin

        return getattr(plugin, name)
    if name in ("PluginHost", "Handle"):
        from nyx_stream import host

        return getattr(host, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("nyx-sandbox")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
