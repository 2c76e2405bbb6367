"""The HTTP API: what the library answers, in the same JSON, shaped as Google's AIPs say."""
