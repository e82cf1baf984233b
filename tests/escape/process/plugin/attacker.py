"""A plugin that attacks with the objects that its capabilities returned."""

import errno
import os

import by_file
import by_path
import by_process
import by_socket
from table import TABLE

from nyx_stream import Plugin, export

MODULES = (by_file, by_path, by_process, by_socket)


class Attacker(Plugin):
    """Runs one attack, or its allowed twin."""

    async def setup(self) -> None:
        """Creates its own files."""
        self.own = next(rule.prefix for rule in self.manifest.paths if rule.prefix.endswith("plugin"))
        await self.files.write_text("mine", "a file of my own")

    @export
    async def table(self) -> dict[str, tuple[str, str, tuple[str, ...]]]:
        """Line, layer and expected answers of each attack."""
        return {name: (found.line, found.layer, found.answers) for name, found in TABLE.items()}

    @export
    async def process(self) -> int:
        """Its pid, for checks from outside."""
        return os.getpid()

    @export
    async def attempt(self, name: str) -> str:
        """Runs an attack; returns the errno or the class of the error that refused it."""
        return await self._run(TABLE[name].act)

    @export
    async def twin(self, name: str) -> str:
        """Runs the allowed twin of an attack."""
        return await self._run(TABLE[name].twin)

    async def _run(self, act) -> str:
        try:
            outcome = await act(self)
        except Exception as error:
            number = getattr(error, "errno", None)
            if type(error).__module__ == "builtins" and number in errno.errorcode:
                return errno.errorcode[number]
            return type(error).__name__
        return f"it worked: {outcome!r}"[:200]
