"""The processes that compute, what they run, and the supervisor of all processes."""

import compiled

compiled.use()
