"""What holds for `self.files.narrow`."""

import asyncio
import gc
from functools import partial

from claims import refused, refused_at_once

from nyx_stream.errors import FilesystemDenied, LimitExceeded, Revoked


async def _filled(plugin):
    """A folder with a file, and a file beside it."""
    await plugin.files.mkdir(f"{plugin.room}/in")
    await plugin.files.write_text(f"{plugin.room}/in/f", "inside")
    await plugin.files.write_text(f"{plugin.room}/out", "outside")
    return f"{plugin.room}/in/"


async def it_does_what_its_prefix_and_mode_allow(plugin):
    """And nothing beside or above it; each refusal has the host's text."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder)
    assert type(narrow) is type(plugin.files)
    told = [await narrow.read_text(f"{folder}f"), await narrow.iterdir(folder), await narrow.exists(f"{folder}g")]
    acts = (
        narrow.read_text(f"{plugin.room}/out"),
        narrow.read_text(f"{folder}../out"),
        narrow.read_text("/etc/passwd"),
        narrow.stat(plugin.room),
        narrow.write_text(f"{folder}new", "x"),
        narrow.write_bytes(f"{folder}new", b"x" * 100_000),
        narrow.mkdir(f"{folder}new"),
        narrow.rename(f"{folder}f", f"{folder}g"),
        narrow.remove(f"{folder}f"),
        _opened(narrow, f"{folder}f", "r+"),
        _opened(narrow, f"{plugin.room}/out", "r"),
    )
    told += [await refused(act, FilesystemDenied) for act in acts]
    await plugin.files.narrow(folder, mode="rw").write_text(f"{folder}new", "x" * 100_000)
    return [*told, len(await narrow.read_bytes(f"{folder}new"))]


async def widening_is_an_error(plugin):
    """Another prefix, another mode, at the first step and at the second."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder, f"{plugin.room}/out")
    places = ("..", "/etc", "denied", "nul\0byte")
    told = [refused_at_once(partial(plugin.files.narrow, place), FilesystemDenied) for place in places]
    told += [refused_at_once(partial(narrow.narrow, place), FilesystemDenied) for place in (*places, "\udcff")]
    told.append(refused_at_once(lambda: narrow.narrow(folder, mode="rw"), FilesystemDenied))
    told.append(refused_at_once(lambda: narrow.narrow(plugin.room), FilesystemDenied))
    told.append(await narrow.narrow(f"{folder}f").read_text(f"{folder}f"))
    told.append(await refused(narrow.narrow(f"{folder}f").read_text(f"{plugin.room}/out"), FilesystemDenied))
    return told


async def wrong_arguments_are_errors(plugin):
    """Modes, terms, types, and nothing at all."""
    narrow = plugin.files.narrow
    return [
        refused_at_once(narrow, ValueError),
        refused_at_once(lambda: narrow("f", mode="w"), ValueError),
        refused_at_once(lambda: narrow("f", requests=1), ValueError),
        refused_at_once(lambda: narrow("f", opens=0), ValueError),
        refused_at_once(lambda: narrow(5), TypeError)[0],
    ]


async def its_time_ends_it(plugin):
    """Files that were opened through it, too, and through what it was narrowed to; those beside it stay."""
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
        told = [await reading.read(2)]
        await _until_closed(reading)
        told += [await refused(file.read(), Revoked) for file in (reading, deeper)]
        told.append(await refused(writing.write("lost"), Revoked))
        told.append([await ours.read(), await _until_written(plugin, f"{folder}g")])
    told.append(await refused(brief.read_text(f"{folder}f"), Revoked))
    told.append(await refused(_opened(brief, f"{folder}f", "r"), Revoked))
    told.append(refused_at_once(lambda: brief.narrow(folder), Revoked))
    return told


async def closing_it_ends_it_alone(plugin):
    """At once, files that are open through it too; the one above goes on."""
    folder = await _filled(plugin)
    narrow = plugin.files.narrow(folder)
    below = narrow.narrow(folder)
    async with narrow.open(f"{folder}f") as theirs, plugin.files.open(f"{folder}f") as ours:
        narrow.close()
        told = [await refused(theirs.read(), Revoked), await ours.read()]
    told += [await refused(files.stat(folder), Revoked) for files in (narrow, below)]
    narrow.close()
    return [*told, await plugin.files.read_text(f"{folder}f")]


async def opens_are_counted_in_it_and_above(plugin):
    """Budgets and open files."""
    folder = await _filled(plugin)
    some = plugin.files.narrow(folder, opens=3)
    one, many = some.narrow(folder, opens=1), some.narrow(folder, opens=100)
    told = [await one.read_text(f"{folder}f"), await refused(one.read_text(f"{folder}f"), Revoked)]
    told += [await many.read_text(f"{folder}f") for _ in range(2)]
    told.append(await refused(many.read_text(f"{folder}f"), Revoked))
    narrow = plugin.files.narrow(folder)
    files = [await (plugin.files, narrow)[n % 2].open(f"{folder}f") for n in range(8)]
    told += [await refused(_opened(each, f"{folder}f", "r"), LimitExceeded) for each in (plugin.files, narrow)]
    for file in files:
        await file.close()
    return told


async def a_file_outlives_the_name_of_what_it_was_opened_through(plugin):
    """Nobody has to keep what is still in use; there is no end of those that are not."""
    folder = await _filled(plugin)
    file = await plugin.files.narrow(folder, ttl="1h").open(f"{folder}f")
    for _ in range(300):
        plugin.files.narrow(folder, ttl="1h")
    gc.collect()
    told = await file.read()
    await file.close()
    return told


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
