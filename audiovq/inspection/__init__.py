"""What a folder of recordings holds, and which settings fit it.

May import `evaluation`, `preprocessing` and below. Start with `inspect.inspect`.
"""
