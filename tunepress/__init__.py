"""The library that the stages and the tools share; it imports neither."""

import tunepress.core  # noqa: F401  (pins the float kernels before anything imports torch)
