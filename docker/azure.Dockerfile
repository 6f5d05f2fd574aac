# The image of a job in Azure ML: the packages of a lock and those for Azure. `make azure-submit` creates the build context and
# inserts the values of the arguments: Azure ML's builds have neither arguments nor BuildKit, and so no RUN --mount.
ARG BASE_IMAGE=debian:bookworm-20260918-slim
# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG LOCK
ARG UV
# torch.compile builds kernels at run time on a GPU, and needs a compiler and Python's headers.
# hadolint ignore=SC2086
RUN case "${LOCK}" in cuda*) compiler="g++ python3-dev" ;; *) compiler= ;; esac \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3 python3-venv ${compiler} \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements.txt /opt/requirements.txt
RUN python3 -m venv /opt/venv && python3 -m venv /opt/installer \
    && /opt/installer/bin/pip install --no-cache-dir uv==${UV} \
    && /opt/installer/bin/uv pip install --python /opt/venv --no-cache --compile-bytecode --requirement /opt/requirements.txt \
    && rm -rf /opt/installer
