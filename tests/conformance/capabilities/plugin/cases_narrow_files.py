"""The conformance cases of `self.files.narrow`."""

import asyncio
import gc
from functools import partial

from claims import refused, refused_at_once

from nyx_stream.errors import FilesystemDenied, LimitExceeded, Revoked


async def _filled(plugin):
    """A folder with a file, and a file beside it."""
    await plugin.files.mkdir(f"{plugin.folder}/in")
    await plugin.files.write_text(f"{plugin.folder}/in/f", "inside")
    await plugin.files.write_text(f"{plugin.folder}/out", "outside")
    return f"{plugin.folder}/in/"


async def it_does_what_its_prefix_and_mode_allow(plugin):
    """It refuses paths beside and above them, with the host's text."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder)
    assert type(narrow) is type(plugin.files)
    found = [await narrow.read_text(f"{folder}f"), await narrow.iterdir(folder), await narrow.exists(f"{folder}g")]
    acts = (
        narrow.read_text(f"{plugin.folder}/out"),
        narrow.read_text(f"{folder}../out"),
        narrow.read_text("/etc/passwd"),
        narrow.stat(plugin.folder),
        narrow.write_text(f"{folder}new", "x"),
        narrow.write_bytes(f"{folder}new", b"x" * 100_000),
        narrow.mkdir(f"{folder}new"),
        narrow.rename(f"{folder}f", f"{folder}g"),
        narrow.remove(f"{folder}f"),
        _opened(narrow, f"{folder}f", "r+"),
        _opened(narrow, f"{plugin.folder}/out", "r"),
    )
    found += [await refused(act, FilesystemDenied) for act in acts]
    await plugin.files.narrow(folder, mode="rw").write_text(f"{folder}new", "x" * 100_000)
    return [*found, len(await narrow.read_bytes(f"{folder}new"))]


async def widening_is_an_error(plugin):
    """Another prefix, another mode, in the first step and in the second."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder, f"{plugin.folder}/out")
    places = ("..", "/etc", "denied", "nul\0byte")
    found = [refused_at_once(partial(plugin.files.narrow, place), FilesystemDenied) for place in places]
    found += [refused_at_once(partial(narrow.narrow, place), FilesystemDenied) for place in (*places, "\udcff")]
    found.append(refused_at_once(lambda: narrow.narrow(folder, mode="rw"), FilesystemDenied))
    found.append(refused_at_once(lambda: narrow.narrow(plugin.folder), FilesystemDenied))
    found.append(await narrow.narrow(f"{folder}f").read_text(f"{folder}f"))
    found.append(await refused(narrow.narrow(f"{folder}f").read_text(f"{plugin.folder}/out"), FilesystemDenied))
    return found


async def wrong_arguments_are_errors(plugin):
    """Modes, terms, types, and no prefix."""
    narrow = plugin.files.narrow
    return [
        refused_at_once(narrow, ValueError),
        refused_at_once(lambda: narrow("f", mode="w"), ValueError),
        refused_at_once(lambda: narrow("f", requests=1), ValueError),
        refused_at_once(lambda: narrow("f", opens=0), ValueError),
        refused_at_once(lambda: narrow(5), TypeError)[0],
    ]


async def its_time_ends_it(plugin):
    """Files that were opened through it, or through a narrower one, end too; others stay open."""
    folder = await _filled(plugin)
    brief = plugin.files.narrow(folder, mode="rw", ttl="1s")
    async with (
        brief.open(f"{folder}f") as reading,
        brief.narrow(folder).open(f"{folder}f") as deeper,
        brief.open(f"{folder}g", "w") as writing,
        plugin.files.open(f"{folder}f") as ours,
    ):
        await writing.write("kept")
        gc.collect()
        found = [await reading.read(2)]
        await _until_closed(reading)
        found += [await refused(file.read(), Revoked) for file in (reading, deeper)]
        found.append(await refused(writing.write("lost"), Revoked))
        found.append([await ours.read(), await _until_written(plugin, f"{folder}g")])
    found.append(await refused(brief.read_text(f"{folder}f"), Revoked))
    found.append(await refused(_opened(brief, f"{folder}f", "r"), Revoked))
    found.append(refused_at_once(lambda: brief.narrow(folder), Revoked))
    return found


async def closing_it_ends_it_alone(plugin):
    """It ends at once with its open files, and the parent goes on."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder)
    below = narrow.narrow(folder)
    async with narrow.open(f"{folder}f") as theirs, plugin.files.open(f"{folder}f") as ours:
        narrow.close()
        found = [await refused(theirs.read(), Revoked), await ours.read()]
    found += [await refused(files.stat(folder), Revoked) for files in (narrow, below)]
    narrow.close()
    return [*found, await plugin.files.read_text(f"{folder}f")]


async def opens_are_counted_in_it_and_above(plugin):
    """The budget `opens`, and the number of open files."""
    folder = await _filled(plugin)
    some = plugin.files.narrow(folder, opens=3)
    one, many = some.narrow(folder, opens=1), some.narrow(folder, opens=100)
    found = [await one.read_text(f"{folder}f"), await refused(one.read_text(f"{folder}f"), Revoked)]
    found += [await many.read_text(f"{folder}f") for _ in range(2)]
    found.append(await refused(many.read_text(f"{folder}f"), Revoked))
    narrow = plugin.files.narrow(folder)
    files = [await (plugin.files, narrow)[n % 2].open(f"{folder}f") for n in range(8)]
    found += [await refused(_opened(each, f"{folder}f", "r"), LimitExceeded) for each in (plugin.files, narrow)]
    for file in files:
        await file.close()
    return found


async def an_open_file_keeps_its_narrowed_files(plugin):
    """The plugin needs no reference to narrowed files while a file is open; those that are not in use are freed."""
    folder = await _filled(plugin)
    file = await plugin.files.narrow(folder, ttl="1h").open(f"{folder}f")
    for _ in range(300):
        plugin.files.narrow(folder, ttl="1h")
    gc.collect()
    found = await file.read()
    await file.close()
    return found


async def _opened(files, path, mode):
    async with files.open(path, mode):
        pass


async def _until_closed(file):
    async with asyncio.timeout(10):
        while True:
            if file.closed:
                return
            await asyncio.sleep(0.01)


async def _until_written(plugin, path):
    async with asyncio.timeout(10):
        while True:
            if text := await plugin.files.read_text(path):
                return text
            await asyncio.sleep(0.01)
