"""A plugin in several versions, whose calls can wait for files in its data directory."""

from nyx_stream.policy import SandboxPolicy

CODE = """
    import asyncio

    class Main(Plugin):
        async def setup(self):
            {setup}
        async def until(self, name):
            while not await self.files.exists(name):
                await asyncio.sleep(0.005)
        async def explode(self):
            await self.until("bomb")
            raise ValueError("in the background")
        @export
        async def version(self) -> int: return {number}
        @export
        async def wait(self, name: str) -> int:
            await self.until(name)
            return {number}
        @export
        async def hang(self): await asyncio.Event().wait()
        @export
        async def count(self, to: int):
            for _ in range(to):
                await asyncio.sleep(0)
                yield {number}
        @export
        async def arm(self): self.spawn(self.explode())
        @export
        async def hold(self, name: str) -> str:
            async with self.files.open("held", "w") as file:
                await self.until(name)
                await file.write("kept")
                return "kept"
    """
PERMISSIONS = 'write = ["$DATA"]'
POLICY = SandboxPolicy.locked_down().allow_path_prefix("$DATA")


def code(number: int, setup: str = "pass") -> str:
    """The code of one version; `setup` is the body of its setup."""
    return CODE.format(number=number, setup=setup)
