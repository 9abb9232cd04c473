"""The broker: a pure core that queues and load-balances requests, and the shell with its sockets."""
