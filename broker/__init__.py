"""The broker: a pure core that queues and load-balances requests, and a shell of sockets."""

import compiled

compiled.use()
