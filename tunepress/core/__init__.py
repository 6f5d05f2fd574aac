"""Errors, files, paths, parameters and the run of a stage. Importing this package pins the float kernels.

Different x86-64 CPUs pick different float kernels and so round differently. These variables name one set of kernels
(AVX2, which every such CPU since 2013 has); they must be set before torch is imported, so they are set here.
A variable that the user has set wins.

- ATEN_CPU_CAPABILITY: torch's own kernels.
- MKL_CBWR: matrix products; STRICT makes them independent of the number of threads too (oneMKL developer guide,
  "Conditional Numerical Reproducibility"). On CPUs that are not Intel's oneMKL takes AUTO in place of AVX2, as MKL_VERBOSE=1
  shows (2024.2, on an AMD EPYC), so two generations of AMD's may differ, and tunepress/models/threads.py limits the threads.
  COMPATIBLE is the one set that all x86-64 CPUs take, and slow.
- ONEDNN_MAX_CPU_ISA: oneDNN's products (bfloat16 and int8).
- TOKENIZERS_PARALLELISM: only silences a warning about forked processes.

onnxruntime 1.32 sends its makers an account of each session, on Linux too, unless ORT_DISABLE_TELEMETRY is set: the address is
in its binary, and a job behind a proxy of the tests was seen to ask for it.

bitsandbytes says at each import that it has not found a faster kernel on the model hub; where the CPU has no AVX512-BF16
it doesn't even look, so it could only make CPUs differ. Its level is set to errors.
"""

import logging
import os

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2,STRICT",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "TOKENIZERS_PARALLELISM": "false",
}

for _name, _value in KERNELS.items():
    os.environ.setdefault(_name, _value)

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
