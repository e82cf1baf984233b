"""Attacks with paths, hosts and URLs that were not granted, in requests to the host."""

import os
import sys

from table import attack


async def own_file(plugin):
    """Reading and writing the plugin's own file works."""
    await plugin.files.write_text("mine", "a file of my own")
    return await plugin.files.read_text("mine")


async def page(plugin):
    """The granted host answers."""
    return (await plugin.http.get("http://granted.example/hello")).text


@attack("Files", "guard", twin=own_file)
async def read_outside(plugin):
    await plugin.files.read_bytes("/root/.bashrc")


@attack("Files", "guard", twin=own_file)
async def climb_out_by_dots(plugin):
    await plugin.files.read_bytes("../../../../../../etc/passwd")


@attack("Files", "guard", twin=own_file)
async def what_is_asked_and_not_granted(plugin):
    await plugin.files.read_bytes("/etc/passwd")


@attack("Files", "guard", twin=own_file)
async def environment_of_the_host(plugin):
    await plugin.files.read_bytes("/proc/self/environ")


@attack("Files", "guard", twin=own_file)
async def environment_of_process_1(plugin):
    await plugin.files.read_bytes("/proc/1/environ")


@attack("Files", "guard", twin=own_file)
async def memory_of_the_host(plugin):
    async with plugin.files.open("/proc/self/mem", "r+b"):
        pass


@attack("Files", "guard", twin=own_file)
async def descriptors_of_the_host(plugin):
    await plugin.files.read_bytes("/proc/self/fd/0")


@attack("Files", "guard", twin=own_file)
async def a_link_out_of_the_grant(plugin):
    await plugin.files.read_bytes("planted-link")


@attack("Files", "guard", twin=own_file)
async def a_fifo(plugin):
    await plugin.files.read_bytes("planted-fifo")


@attack("Files", "guard", twin=own_file)
async def remove_outside(plugin):
    await plugin.files.remove("/tmp", tree=True)


@attack("Files", "guard", twin=own_file)
async def rename_out(plugin):
    await plugin.files.rename("mine", "/tmp/nyx-stolen")


@attack("Files", "guard", twin=own_file)
async def write_the_import_path(plugin):
    await plugin.files.write_text(f"{plugin.own}/planted.py", "")


@attack("Files", "guard", twin=own_file)
async def write_the_installed_packages(plugin):
    await plugin.files.write_text(os.path.join(sys.prefix, "planted.py"), "")


@attack("Network", "guard", twin=page)
async def another_host(plugin):
    await plugin.http.get("http://nowhere.example/")


@attack("Network", "guard", twin=page)
async def metadata_of_the_cloud(plugin):
    await plugin.http.get("http://169.254.169.254/latest/meta-data/")


@attack("Network", "guard", twin=page)
async def a_name_that_leads_inside(plugin):
    await plugin.http.get("http://inside.example/")


@attack("Network", "guard", twin=page)
async def a_redirect_elsewhere(plugin):
    await plugin.http.get("http://granted.example/to?http://nowhere.example/", follow_redirects=True)


@attack("Network", "guard", twin=page)
async def connect_elsewhere(plugin):
    await plugin.connect("nowhere.example", 22)


@attack("Network", "guard", twin=page)
async def connect_inside(plugin):
    await plugin.connect("inside.example", 80)
