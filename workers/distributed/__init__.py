"""Distributed servables: one model split over ranks, each in an agent process of its own.

The *worker* (`group`, `group_link`, `group_backend`) is the group's one member on the bus; to its
Python stages the ranks look like one loaded model. *Agents* (`agent`, `agent_session`) hold one
rank each. A *launcher* (`launcher`, `launch_plan`) starts the agents of one machine. They meet at
the worker's distributed address, in the messages of `protocol.group`.
"""
