"""The operations of a host on its plugins: load, reload, restart, revoke, and change or watch their policies."""
