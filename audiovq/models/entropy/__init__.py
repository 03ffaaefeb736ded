"""The entropy model of archives: p(code | neighbours) in integers, the same on every machine.

Start with `context_tables.ContextTables`, the integer tables; `context_model` is the network that they are made
from, `rate_search` chooses codes that weigh their bits.
"""
