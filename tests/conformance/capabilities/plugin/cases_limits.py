"""What holds for the limits of the capabilities that have no case elsewhere."""

from claims import refused

from nyx_stream.errors import LimitExceeded


async def open_files_are_counted(plugin):
    """As many as the grant allows are open at once, and closing one allows another."""
    path = f"{plugin.folder}/f"
    await plugin.files.write_bytes(path, b"x")
    files = [await plugin.files.open(path, "rb") for _ in range(8)]
    told = await refused(_opened(plugin, path), LimitExceeded)
    whole = await plugin.files.read_bytes(path)
    await files.pop().close()
    await _opened(plugin, path)
    for file in files:
        await file.close()
    return [told, whole.decode()]


async def whole_reads_are_bounded(plugin):
    """One call reads so much and no more; an open file may be as large as it is."""
    path = f"{plugin.folder}/f"
    async with plugin.files.open(path, "wb") as file:
        await file.write(bytes(1_000_001))
    told = await refused(plugin.files.read_bytes(path), LimitExceeded)
    async with plugin.files.open(path, "rb") as file:
        return [told, len(await file.read())]


async def _opened(plugin, path):
    async with plugin.files.open(path, "rb"):
        pass
