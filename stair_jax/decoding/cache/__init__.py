"""The paged KV cache, on the host: its pages, and the prefixes kept in them."""
