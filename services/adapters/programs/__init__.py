"""Programs of the operator, run for one call each, with a time limit and without a process left behind.

`run` is the side of the service, on its event loop. `launcher` is a script in a process of its own between the service
and the program: it ends the program and every descendant, also after the service was killed or stopped.
"""
