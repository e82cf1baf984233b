"""The lock file: the accepted version and content of each plugin, and the approvals that outlive the host."""
