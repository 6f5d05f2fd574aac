# The image that serves a model: onnxruntime-genai without torch. `docker/build serve cpu|cuda13|cuda12` passes the arguments.
ARG BASE_IMAGE=debian:bookworm-20260918-slim

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
RUN --mount=type=cache,id=tunepress-serve-apt,target=/var/cache/apt \
    --mount=type=cache,id=tunepress-serve-lists,target=/var/lib/apt/lists \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && useradd --uid 1000 --create-home tunepress \
    && rm -rf /var/log/* /var/cache/ldconfig
ENV PATH=/opt/venv/bin:${PATH}

# The installer of the image's environment, which is in no image.
FROM base AS installer
ARG UV
RUN --mount=type=cache,id=tunepress-serve-apt,target=/var/cache/apt \
    --mount=type=cache,id=tunepress-serve-lists,target=/var/lib/apt/lists \
    --mount=type=cache,id=tunepress-pip,target=/root/.cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    --mount=type=bind,source=docker/install,target=/install \
    apt-get update && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv --without-pip /opt/venv && python3 -m venv /opt/installer \
    && /install /opt/installer/bin/pip install uv==${UV}

FROM base AS serve
WORKDIR /project
COPY --from=installer /opt/venv /opt/venv
ARG LOCK
RUN --mount=type=cache,id=tunepress-uv,target=/root/.cache/uv \
    --mount=type=secret,id=index --mount=type=secret,id=certificates \
    --mount=type=bind,source=docker/install,target=/install \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=installer,source=/opt/installer,target=/opt/installer \
    /install /opt/installer/bin/uv pip install --python /opt/venv --link-mode copy --compile-bytecode \
        --requirement "/requirements/${LOCK}.txt"
COPY docker docker
COPY requirements requirements
COPY tools tools
COPY tunepress tunepress
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TUNEPRESS_LOCK=requirements/${LOCK}.txt
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["/project/docker/entry"]
CMD ["python", "-m", "tools.serve", "--model", "/model", "--host", "0.0.0.0", "--port", "8080"]
ARG BASE_IMAGE
ARG BASE_DIGEST
ARG VERSION
ARG REVISION
ARG PYTHON
ARG ONNXRUNTIME
ARG ONNXRUNTIME_GENAI
ARG CUDA
ARG CUDNN
ARG DRIVER
LABEL org.opencontainers.image.title="tunepress-serve" \
      org.opencontainers.image.description="Serves an int4 ONNX model of Tunepress over HTTP." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      tunepress.lock="${LOCK}" \
      tunepress.python="${PYTHON}" \
      tunepress.onnxruntime="${ONNXRUNTIME}" \
      tunepress.onnxruntime-genai="${ONNXRUNTIME_GENAI}" \
      tunepress.cuda="${CUDA}" \
      tunepress.cudnn="${CUDNN}" \
      tunepress.driver="${DRIVER}"
