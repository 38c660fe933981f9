"""The server half of the core: everything that speaks gRPC and HTTP, and nothing of any service."""
