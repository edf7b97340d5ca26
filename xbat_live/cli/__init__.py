"""The ``xbat`` command."""

import os

# Before numpy is loaded. The BLAS shares even products of a few microseconds among all cores, and its threads then wait for one another:
# a frame's verdict takes a fifth longer and a second core. What is large is worked on in threads of our own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
