"""The wire: heads, dialects, sessions, status and limits. Pure: no sockets, no clock, no logging."""
