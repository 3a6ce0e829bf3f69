"""The router: a request's walk from its caller to a provider and back, with two faces over one engine."""
