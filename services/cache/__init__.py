"""The cache service: whole answers by key, bounded in bytes and time. What may be cached is the router's decision."""
