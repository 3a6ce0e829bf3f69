"""The provider-proxy: one upstream call per request, in its provider's own wire format, on record from end to end."""
