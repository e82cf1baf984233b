"""HTTP/1.1 over guarded connections: the pool, one connection, and the byte stream below it."""
