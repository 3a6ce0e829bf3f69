"""Accounting: who may call, and what every call cost."""
