"""A plugin's code: its modules, exported methods, their signatures and types, and the digests of its files."""
