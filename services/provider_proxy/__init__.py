"""The provider-proxy: one upstream call per request, in each provider's own wire format, journalled before and after."""
