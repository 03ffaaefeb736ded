"""Settings and errors. Everything that a user can set is a frozen dataclass here.

Imports nothing of audiovq. Start with `settings`: one dataclass a part of the program, checked when made.
`presets` holds settings of training by name; `serialize` writes them as JSON; `flags` names them as flags.
"""
