"""The capabilities: services that act for a plugin when the guard allows it, and the objects that a plugin holds."""
