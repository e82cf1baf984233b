"""A plugin's code, the same at every isolation level: its modules, and its exported methods as validated calls."""
