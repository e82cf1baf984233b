"""From an entry point to a plugin object with its methods. The same at every level; knows none of them."""

from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.code.exception_text import describe
from nyx_stream.isolation.code.exports import Method, methods_of
from nyx_stream.isolation.code.modules import PluginModules
from nyx_stream.plugin import Context, Plugin


def instantiate(name: str, entry: str, modules: PluginModules, context: Context) -> tuple[Plugin, dict[str, Method]]:
    """Imports `entry` and makes the plugin `name` from it. Call it with the plugin's attribution.

    Raises:
        PluginLoadError: it does not import, is no `Plugin`, or its `__init__` raised. The cause is chained.
    """
    try:
        found = modules.load(entry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing runs the plugin's code: SystemExit must not end the host
        raise PluginLoadError(name, f"{entry} does not import: {describe(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise PluginLoadError(name, f"{entry} is not a subclass of nyx_stream.Plugin")
    try:
        plugin = found.__new__(found)
        plugin._context = context
        plugin.__init__()  # type: ignore[misc]  # after the context: capabilities are there in __init__
        return plugin, methods_of(name, plugin)
    except (PluginLoadError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginLoadError(name, f"{entry} cannot be made: {describe(error)}") from error
