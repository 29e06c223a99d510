"""Parts of tools/plan_check.py."""
