"""The router's HTTP face: OpenAI's and Anthropic's wire formats in front of the same engine that gRPC callers reach."""
