"""The conformance cases of `self.files`."""

import asyncio
import os
import stat

from claims import refused

from nyx_stream.errors import FilesystemDenied

LARGE = bytes(range(256)) * 2048  # half a MiB: more than a message carries


async def a_file_reads_as_it_was_written(plugin):
    """Text and bytes, small and large, by `write_text`, `read_text` and the like."""
    path = f"{plugin.folder}/f"
    sizes = [await plugin.files.write_text(path, "grüße\r\n"), await plugin.files.write_bytes(f"{path}2", LARGE)]
    assert await plugin.files.read_text(path) == "grüße\r\n"
    assert await plugin.files.read_bytes(f"{path}2") == LARGE
    return sizes


async def open_gives_an_aiofiles_file(plugin):
    """`async with` and `await`, text and binary, line by line, seek and tell."""
    path = f"{plugin.folder}/f"
    async with plugin.files.open(path, "w", encoding="utf-8") as file:
        await file.write("one\ntwo\n")
        assert file.name == path
    file = await plugin.files.open(path, "r+b")
    kind = type(file).__name__
    await file.seek(0, os.SEEK_END)
    await file.write(b"three\n")
    await file.close()
    async with plugin.files.open(path) as file:
        lines = [line async for line in file]
    return [kind, lines, type(file).__name__, file.closed]


async def every_mode_does_what_open_does(plugin):
    """Truncates, appends, creates exclusively, reads only, writes only."""
    path, found = f"{plugin.folder}/f", []
    for mode, text in (("x", "1"), ("a", "2"), ("r+", "3"), ("a+", "4"), ("w+", "56"), ("w", "7")):
        async with plugin.files.open(path, mode) as file:
            await file.write(text)
        found.append(await plugin.files.read_text(path))
    found.append(await refused(_opened(plugin, path, "x"), FileExistsError))
    async with plugin.files.open(path, "r") as file:
        found.append(await refused(file.write("8"), OSError))
    async with plugin.files.open(path, "w") as file:
        found.append(await refused(file.read(), OSError))
    return found


async def wrong_arguments_open_nothing(plugin):
    """The errors of the built-in open, before the host is asked."""
    path = f"{plugin.folder}/never"
    found = []
    for kind, arguments in (
        (ValueError, {"mode": "rw"}),
        (ValueError, {"mode": "wb", "encoding": "utf-8"}),
        (LookupError, {"mode": "w", "encoding": "no-such-codec"}),
        (TypeError, {"mode": 5}),
        (ValueError, {"closefd": False}),
    ):
        found.append(await refused(_opened(plugin, path, **arguments), kind))
    assert not await plugin.files.exists(path)
    return found


async def directories_are_made_listed_renamed_and_removed(plugin):
    """The directory operations, with the errors of the system."""
    folder, files = plugin.folder, plugin.files
    await files.mkdir(f"{folder}/a/b/c", parents=True)
    await files.mkdir(f"{folder}/a", exist_ok=True)
    found = [await refused(files.mkdir(f"{folder}/a"), FileExistsError)]
    await files.write_text(f"{folder}/a/b/f", "x")
    await files.rename(f"{folder}/a/b/f", f"{folder}/a/g")
    found.append(sorted(await files.iterdir(f"{folder}/a")))
    found.append(sorted([entry async for entry in files.iterdir(folder)]))
    found.append(await refused(files.remove(f"{folder}/a"), OSError))
    await files.remove(f"{folder}/a/g")
    await files.remove(f"{folder}/a", tree=True)
    found.append(await files.iterdir(folder))
    found.append(await refused(files.iterdir(f"{folder}/gone").__aiter__().__anext__(), FileNotFoundError))
    return found


async def a_long_listing_is_whole(plugin):
    """More names than fit into a message, one of them not UTF-8."""
    names = [f"{number:04}-{'n' * 200}" for number in range(400)] + ["\udcff\udc80"]
    for name in names:
        await plugin.files.write_bytes(f"{plugin.folder}/{name}", b"")
    listed = await plugin.files.iterdir(plugin.folder)
    assert sorted(listed) == sorted(f"{plugin.folder}/{name}" for name in names)
    return len(listed)


async def stat_has_all_fields(plugin):
    """Type, size and nanoseconds, of files and directories."""
    await plugin.files.write_bytes(f"{plugin.folder}/f", b"12345")
    file, folder = await plugin.files.stat(f"{plugin.folder}/f"), await plugin.files.stat(plugin.folder)
    assert type(file) is os.stat_result
    assert abs(file.st_mtime_ns / 1e9 - file.st_mtime) < 1
    return [stat.filemode(file.st_mode), file.st_size, file.st_nlink, stat.S_ISDIR(folder.st_mode), file.st_blksize]


async def exists_returns_whether(plugin):
    """True, false, and a denial where it is not granted."""
    await plugin.files.write_bytes(f"{plugin.folder}/f", b"")
    there = [await plugin.files.exists(f"{plugin.folder}/{name}") for name in ("f", "g", "f/below")]
    return [there, await refused(plugin.files.exists("/etc/passwd"), FilesystemDenied)]


async def what_is_not_granted_is_denied(plugin):
    """Each operation raises the host's error, and nothing is done."""
    files = plugin.files
    acts = {
        "read": lambda path: files.read_bytes(path),
        "text": lambda path: files.read_text(path),
        "write": lambda path: files.write_bytes(path, b"x"),
        "open": lambda path: _opened(plugin, path, "rb"),
        "append": lambda path: _opened(plugin, path, "a"),
        "stat": lambda path: files.stat(path),
        "list": lambda path: _listed(plugin, path),
        "mkdir": lambda path: files.mkdir(path),
        "remove": lambda path: files.remove(path),
        "rename": lambda path: files.rename(path, f"{plugin.folder}/stolen"),
        "rename to": lambda path: files.rename(f"{plugin.folder}/mine", path),
    }
    found = []
    for path in ("/etc/passwd", "../../../etc/passwd", "/proc/self/environ", "denied/x", "nul\0byte"):
        found += [await refused(act(path), FilesystemDenied) for act in acts.values()]
    return found


async def its_own_code_is_read_only(plugin):
    """The plugin's folder is granted for reading and never written."""
    folder = next(rule.prefix for rule in plugin.manifest.paths if rule.mode == "r")
    text = await plugin.files.read_text(f"{folder}/claims.py")
    assert "async def refused" in text
    return await refused(plugin.files.write_text(f"{folder}/claims.py", ""), FilesystemDenied)


async def an_error_of_the_system_arrives_unchanged(plugin):
    """Class and errno of an OSError."""
    found = []
    await plugin.files.write_bytes(f"{plugin.folder}/f", b"")
    for act in (
        plugin.files.read_bytes(f"{plugin.folder}/gone"),
        plugin.files.read_bytes(plugin.folder),
        plugin.files.stat(f"{plugin.folder}/f/below"),
        plugin.files.write_bytes(f"{plugin.folder}/{'n' * 300}", b""),
        plugin.files.rename(f"{plugin.folder}/gone", f"{plugin.folder}/there"),
    ):
        try:
            await act
        except OSError as error:
            found.append([type(error).__name__, error.errno, error.strerror])
    return found


async def wrong_types_are_type_errors(plugin):
    """A path must be a str, and content bytes."""
    return [
        (await refused(plugin.files.read_bytes(b"bytes"), TypeError))[0],
        (await refused(plugin.files.read_bytes(5), TypeError))[0],
        (await refused(plugin.files.write_bytes(f"{plugin.folder}/f", "text"), TypeError))[0],
    ]


async def many_at_once(plugin):
    """Concurrent operations don't mix up their results."""
    await asyncio.gather(*(plugin.files.write_text(f"{plugin.folder}/{n}", str(n)) for n in range(100)))
    texts = await asyncio.gather(*(plugin.files.read_text(f"{plugin.folder}/{n}") for n in range(100)))
    return texts == [str(n) for n in range(100)]


async def a_cancelled_write_leaves_the_old_content(plugin):
    """A cancelled write leaves no partial content."""
    path = f"{plugin.folder}/f"
    await plugin.files.write_bytes(path, b"old")
    task = asyncio.ensure_future(plugin.files.write_bytes(path, LARGE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return await plugin.files.read_bytes(path) in (b"old", LARGE)


async def _opened(plugin, path, mode="r", **options):
    async with plugin.files.open(path, mode, **options):
        pass


async def _listed(plugin, path):
    return await plugin.files.iterdir(path)
