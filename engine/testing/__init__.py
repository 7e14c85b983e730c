"""The public test kit: simulated outside systems and other tools that tests of the engine and of machines share.

Nothing here is imported by production code, and each tool stands alone: a simulator speaks the outside system's
own protocol and knows nothing of the handler that will call it.
"""
