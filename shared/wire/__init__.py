"""Providers' wire formats as pure functions over JSON and canonical messages, for every service that speaks one.

A face turns a format into the canonical form and an adapter turns it back; both use the same module, so that nothing is
lost between them. HTTP, keys and retries are theirs.
"""
