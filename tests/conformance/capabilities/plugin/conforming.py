"""The plugin that says of itself what holds. Its cases are plain functions; whatever they return is compared."""

import cases_connect
import cases_env
import cases_files
import cases_http
import cases_limits
import cases_narrow
import cases_narrow_files

from nyx_stream import Plugin, export

MODULES = {
    "connect": cases_connect,
    "env": cases_env,
    "files": cases_files,
    "http": cases_http,
    "limits": cases_limits,
    "narrow": cases_narrow,
    "narrow_files": cases_narrow_files,
}


class Conforming(Plugin):
    """Runs one case."""

    @export
    async def run(self, module: str, case: str) -> object:
        """Runs a case in a directory of its own, with a client that remembers no cookies."""
        self.folder = f"{module}.{case}"
        await self.files.mkdir(self.folder, exist_ok=True)
        self.http.cookies.clear()
        return await getattr(MODULES[module], case)(self)
