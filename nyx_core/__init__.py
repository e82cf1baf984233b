"""OS-level limits for the current process.

Start at `nyx_core.sandbox`. `nyx_core.beneath` opens files below a directory.

`nyx_core` works alone, without `nyx_stream`. Each folder named after an OS has the layers of that OS, and a module
`platform` that puts them in order.
"""
