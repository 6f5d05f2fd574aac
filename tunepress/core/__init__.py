"""Errors, files, paths, parameters and the run of a stage. Importing this package pins the float kernels.

Different x86-64 CPUs pick different float kernels and so round differently. These variables name one set of kernels
(AVX2, which every such CPU since 2013 has); they must be set before torch is imported, so they are set here.
A variable that the user has set takes precedence.

- ATEN_CPU_CAPABILITY: torch's own kernels.
- MKL_CBWR: matrix products; STRICT makes them independent of the number of threads too (oneMKL developer guide,
  "Conditional Numerical Reproducibility"). On CPUs not made by Intel, oneMKL uses AUTO instead of AVX2, as MKL_VERBOSE=1
  shows (2024.2, on an AMD EPYC), so two AMD generations may differ, and tunepress/models/threads.py limits the threads.
  COMPATIBLE is the only set that every x86-64 CPU uses, and it is slow.
- ONEDNN_MAX_CPU_ISA: oneDNN's products (bfloat16 and int8).
- TOKENIZERS_PARALLELISM: silences a warning about forked processes. tunepress/text/tokenizer.py turns it on for batches.

onnxruntime 1.32 sends telemetry about each session, on Linux too, unless ORT_DISABLE_TELEMETRY is set: the address is
in its binary, and a test job that used a proxy was seen to request it.

bitsandbytes warns at each import that it has not found a faster kernel on the model hub. On a CPU without AVX512-BF16
it does not even look for one, so such a kernel could only make CPUs differ. Its log level is set to errors.
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
