# The image that runs all stages. `docker/build train cpu|cuda13|cuda12` passes the arguments, from versions.env.
ARG BASE_IMAGE=debian:bookworm-20260918-slim

# A folder of wheels on the host replaces this stage: --build-context wheels=FOLDER.
FROM scratch AS wheels
COPY LICENSE /

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
ARG LOCK
# torch.compile builds kernels at run time on a GPU, and needs a compiler and Python's headers.
# hadolint ignore=SC2086
RUN --mount=type=cache,id=tunepress-train-apt,target=/var/cache/apt \
    --mount=type=cache,id=tunepress-train-lists,target=/var/lib/apt/lists \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && case "${LOCK}" in cuda*) compiler="g++ python3-dev" ;; *) compiler= ;; esac \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3 ${compiler} \
    && git config --system --add safe.directory '*' \
    && useradd --uid 1000 --create-home tunepress \
    && rm -rf /var/log/* /var/cache/ldconfig
WORKDIR /project
# The root is read-only and the user arbitrary: programs write their own files to /tmp and HOME, which docker/run mounts.
ENV PATH=/opt/venv/bin:${PATH} \
    VENV=/opt/venv \
    HOME=/home/tunepress \
    USER=tunepress \
    PYTHONDONTWRITEBYTECODE=1 \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TUNEPRESS_LOCK=requirements/${LOCK}.txt
ENTRYPOINT ["/project/docker/entry"]
CMD ["dvc", "repro"]

# An empty environment for the images, and its installer, which is in no image.
FROM base AS installer
ARG UV
RUN --mount=type=cache,id=tunepress-train-apt,target=/var/cache/apt \
    --mount=type=cache,id=tunepress-train-lists,target=/var/lib/apt/lists \
    --mount=type=cache,id=tunepress-pip,target=/root/.cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    --mount=type=bind,source=docker/install,target=/install \
    apt-get update && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/venv && python3 -m venv /opt/installer \
    && HOME=/root /install /opt/installer/bin/pip install uv==${UV}

FROM base AS packages
ARG LOCK
ARG EXTRA=
COPY --from=installer /opt/venv /opt/venv
# The stamp is newer than the locks, so that the Makefile takes the environment VENV as up to date.
RUN --mount=type=cache,id=tunepress-uv,target=/root/.cache/uv \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    --mount=type=bind,source=docker/install,target=/install \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=installer,source=/opt/installer,target=/opt/installer \
    --mount=type=bind,from=wheels,target=/wheels \
    HOME=/root /install /opt/installer/bin/uv pip install --python /opt/venv --link-mode copy --compile-bytecode \
        --find-links /wheels --requirement "/requirements/${LOCK}.txt" \
    && touch --date=2100-01-01 /opt/venv/.cpu \
    && if [ -n "${EXTRA}" ]; then \
        HOME=/root /install /opt/installer/bin/uv pip install --python /opt/venv --link-mode copy --compile-bytecode \
            --requirement "/requirements/${EXTRA}.txt" \
        && touch --date=2100-01-01 "/opt/venv/.${EXTRA}"; \
    fi

# With what `make test-all` needs.
FROM packages AS test
RUN --mount=type=cache,id=tunepress-uv,target=/root/.cache/uv \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    --mount=type=bind,source=docker/install,target=/install \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=installer,source=/opt/installer,target=/opt/installer \
    HOME=/root /install /opt/installer/bin/uv pip install --python /opt/venv --link-mode copy --compile-bytecode \
        --requirement /requirements/search.txt --requirement /requirements/serve.txt --requirement /requirements/dev.txt \
        --requirement /requirements/azure.txt --requirement /requirements/harness.txt \
    && touch --date=2100-01-01 /opt/venv/.search /opt/venv/.harness /opt/venv/.serve /opt/venv/.dev /opt/venv/.azure
COPY . .
USER 1000:1000

FROM packages AS train
COPY . .
USER 1000:1000
ARG LOCK
ARG BASE_IMAGE
ARG BASE_DIGEST
ARG VERSION
ARG REVISION
ARG PYTHON
ARG TORCH
ARG ONNXRUNTIME
ARG ONNXRUNTIME_GENAI
ARG CUDA
ARG CUDNN
ARG DRIVER
LABEL org.opencontainers.image.title="tunepress-train" \
      org.opencontainers.image.description="Fine-tunes a small language model and presses it to int4 ONNX." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      tunepress.lock="${LOCK}" \
      tunepress.python="${PYTHON}" \
      tunepress.torch="${TORCH}" \
      tunepress.onnxruntime="${ONNXRUNTIME}" \
      tunepress.onnxruntime-genai="${ONNXRUNTIME_GENAI}" \
      tunepress.cuda="${CUDA}" \
      tunepress.cudnn="${CUDNN}" \
      tunepress.driver="${DRIVER}"
