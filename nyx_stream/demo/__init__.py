"""What `nyx demo` shows: a plugin that is shipped with the package, run for real against a server on loopback."""
