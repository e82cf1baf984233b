"""Approvals of optional permissions: who asks, who answers, and what was answered."""
