"""What a plugin holds: objects that perform an operation themselves, after the guard has allowed it."""
