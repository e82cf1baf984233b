"""What a host reports: status and metrics of each plugin, observed calls, and the audit trail."""
