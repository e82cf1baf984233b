"""The demonstrations of `nyx demo`: shipped plugins that really run, against an HTTP server on loopback."""
