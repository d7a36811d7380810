"""The gate: untrusted HTTP and WebSocket in, verified commands out; what the exchange knows, published. It
has no rules of the exchange of its own."""
