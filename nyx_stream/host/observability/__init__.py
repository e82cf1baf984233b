"""What a host reports: observed calls, metrics, status, and the audit trail."""
