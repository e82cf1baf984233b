"""A plugin's modules are private, can be imported relatively and absolutely, and are removed on unload."""

import sys

import pytest

from nyx_stream.errors import PluginLoadError

CODE = """
    import shared
    from . import shared as same
    import pack.inner
    from pack import inner
    from pack.inner import NAME
    import json

    class Main(Plugin):
        @export
        async def names(self) -> list[str]:
            import late
            assert shared is same and pack.inner is inner
            return [shared.NAME, NAME, late.NAME, json.__name__]
    """


def modules(name: str) -> dict[str, str]:
    return {
        "shared": f"NAME = 'shared of {name}'",
        "pack__INIT": "from . import inner",
        "pack__inner": f"""
            import shared
            from ..shared import NAME
            assert NAME == shared.NAME
            NAME = 'inner of {name}'
            """,
        "late": "from shared import NAME",
    }


async def test_relative_and_absolute_imports_find_the_plugins_own_modules(host, make):
    """Sibling modules and packages are found by `import x`, `from . import x`, and late in a function."""
    handle = await host.load(make("one", CODE, **modules("one")))
    assert await handle.call("names") == ["shared of one", "inner of one", "shared of one", "json"]


async def test_two_plugins_may_have_modules_of_the_same_name(host, make):
    """Each plugin gets its own modules, and sys.modules has none of their plain names."""
    one = await host.load(make("one", CODE, **modules("one")))
    two = await host.load(make("two", CODE, **modules("two")))
    assert (await one.call("names"))[0] == "shared of one"
    assert (await two.call("names"))[0] == "shared of two"
    assert not {"shared", "pack", "late", "main"} & set(sys.modules)


async def test_unloading_removes_the_modules_and_their_finder(host, make):
    """After unload nothing of the plugin is in sys.modules or sys.meta_path."""
    before = set(sys.modules), list(sys.meta_path)
    await host.load(make("one", CODE, **modules("one")))
    await host.unload("one")
    assert {name for name in set(sys.modules) - before[0] if name.startswith("_nyx")} == set()
    assert list(sys.meta_path) == before[1]


async def test_no_bytecode_is_written_into_the_plugin_folder(host, make):
    """Loading changes nothing in the plugin's folder."""
    folder = make("one", CODE, **modules("one"))
    before = sorted(path for path in folder.rglob("*"))
    await (await host.load(folder)).call("names")
    assert sorted(path for path in folder.rglob("*")) == before


async def test_stale_bytecode_in_the_folder_is_not_believed(host, make):
    """The source runs, even beside a bytecode file that claims to be newer."""
    import py_compile

    folder = make("one", "class Main(Plugin):\n    @export\n    async def f(self) -> int: return 1\n")
    stamp = (folder / "main.py").stat()
    py_compile.compile(str(folder / "main.py"))
    text = (folder / "main.py").read_text().replace("return 1", "return 2")
    (folder / "main.py").write_text(text)
    import os

    os.utime(folder / "main.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert await (await host.load(folder)).call("f") == 2


async def test_a_module_may_hide_one_of_the_standard_library_from_its_plugin_only(host, make):
    """A plugin's module `json` hides the standard library's from that plugin only."""
    handle = await host.load(
        make(
            "one",
            """
            import json
            class Main(Plugin):
                @export
                async def f(self) -> str: return json.MINE
            """,
            json="MINE = 'mine'",
        )
    )
    assert await handle.call("f") == "mine"
    import json

    assert not hasattr(json, "MINE")


async def test_a_failed_import_leaves_no_module(host, make):
    """A plugin whose import fails half way leaves nothing in sys.modules."""
    with pytest.raises(
        PluginLoadError, match="main:Main does not import: ModuleNotFoundError: No module named 'nosuch'"
    ):
        await host.load(make("one", "import shared\nimport nosuch", shared=""))
    assert not [name for name in sys.modules if name.startswith("_nyx_one")]


async def test_types_of_a_module_with_postponed_annotations(host, make):
    """Annotations that are text resolve in the plugin's module, models of sibling modules included."""
    folder = make(
        "one",
        "",
        model="from pydantic import BaseModel\nclass Point(BaseModel):\n    x: int",
    )
    (folder / "main.py").write_text(
        "from __future__ import annotations\n"
        "from nyx_stream import Plugin, export\n"
        "from model import Point\n"
        "class Main(Plugin):\n"
        "    @export\n"
        "    async def move(self, point: Point, by: int = 1) -> Point:\n"
        "        return Point(x=point.x + by)\n"
    )
    handle = await host.load(folder)
    moved = await handle.call("move", point={"x": 2})
    assert moved.x == 3
    assert (await handle.call("move", point=moved, by=5)).x == 8
