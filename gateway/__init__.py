"""The doors: gRPC and REST in front, the bus behind, and handlers of bytes in between."""

import compiled

compiled.use()
