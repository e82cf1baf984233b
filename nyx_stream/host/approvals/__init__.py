"""Approvals of optional permissions at run time: the service, its prompts to the approver, and what was approved."""
