"""The wire: heads, dialects, sessions, status and limits. Pure: no I/O, no clock, no logging."""

import compiled

compiled.use()
