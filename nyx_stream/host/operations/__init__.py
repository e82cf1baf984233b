"""What a host does with a plugin: load, reload, revoke, and change or watch its policy."""
