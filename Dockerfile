# The job's image: `make image`, or `make image TARGET=cpu`. Why it is so: docs/decisions/0010.
#
# Two targets, the same but for their dependencies (and the compiler that Triton needs):
#   gpu   requirements/gpu.txt; the default
#   cpu   requirements/cpu.txt and the CPU build of torch: for validate, mirror, status and CI
#
# What changes seldom comes first: system, torch with CUDA, other dependencies, our code. Each is a
# layer of its own, so a change of code is a small push.
#
# pip, its cache and its settings are mounted while it runs and never in the image. The settings are
# secrets (`pip`: a pip.conf, `ca`: certificates) and the build context `wheels`, all optional;
# scripts/image.sh fills them from pip's settings where it runs.

# Any base with Python 3.11 or 3.12 (and its venv) and Debian's apt.
ARG BASE_IMAGE=python:3.12-slim

# Wheels that no index has: `--build-context wheels=<folder>` takes this place.
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS base
# Debian's security updates are worth more here than versions that stay.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# pip, outside of the environment that it installs into.
FROM base AS pip
RUN python3 -m venv /opt/pip \
    && printf '%s\n' '#!/bin/sh' \
         'export PIP_CONFIG_FILE=/run/secrets/pip PIP_CACHE_DIR=/run/pip/cache' \
         'export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore' \
         'exec /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: "$@"' \
         > /opt/pip/install \
    && chmod +x /opt/pip/install

# gpu.txt in two parts, so that a new version of a small library leaves the large layer alone.
FROM base AS lists
WORKDIR /lists
COPY requirements/gpu.txt ./
RUN awk '/^[a-z0-9]/ { large = /^(torch|torchvision|triton|xformers|nvidia-.*|cuda-.*)==/ } \
         { print > (large ? "torch.txt" : "rest.txt") }' gpu.txt \
    && awk '/^[a-z0-9]/ { wanted = /^setuptools==/ } wanted' gpu.txt > setuptools.txt

# Our package below /layer, as it will lie in the image.
FROM pip AS code
WORKDIR /build
COPY --from=lists /lists/setuptools.txt ./
RUN --mount=type=cache,target=/run/pip/cache \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/pip/install --no-deps --require-hashes -r setuptools.txt
COPY pyproject.toml README.md LICENSE ./
COPY job/ job/
RUN /opt/pip/install --no-deps --no-index --no-build-isolation --no-warn-script-location \
      --root /layer .

FROM base AS runtime
# The root file system is read-only at run time and the user is anyone: all that is written goes
# below /scratch. Python's bytecode was compiled as pip installed it. The cache folders are those
# that the job itself chooses below FORGE_WORK_DIR, so that tools beside it use the same.
RUN mkdir --mode=1777 /scratch
ENV FORGE_WORK_DIR=/scratch \
    HOME=/scratch \
    TMPDIR=/scratch \
    XDG_CACHE_HOME=/scratch/cache \
    HF_HOME=/scratch/cache/huggingface \
    HF_DATASETS_CACHE=/scratch/cache/datasets \
    HF_MODULES_CACHE=/scratch/cache/models-code \
    MPLCONFIGDIR=/scratch/cache/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/scratch/cache/torchinductor \
    TRITON_CACHE_DIR=/scratch/cache/triton \
    UNSLOTH_COMPILE_LOCATION=/scratch/cache/unsloth-compile \
    UNSLOTH_MEGA_CACHE_DIR=/scratch/cache/unsloth-mega-cache \
    UNSLOTH_DISABLE_STATISTICS=1 \
    UNSLOTH_DATASET_NUM_PROC=0 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    USER=forge
LABEL org.opencontainers.image.title="forge-job" \
      org.opencontainers.image.description="Fine-tunes a tool-calling model with QLoRA, as a Kubernetes Job" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /scratch
EXPOSE 9464
ENTRYPOINT ["tini", "--", "python", "-m", "job"]

FROM runtime AS cpu
# An index of CPU builds, for x86: elsewhere Linux gets the build for CUDA, which needs it.
ARG TORCH_INDEX_URL=""
COPY requirements/torch-cpu.txt /opt/venv/torch.txt
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=wheels,target=/run/pip/wheels \
    --mount=type=cache,target=/run/pip/cache \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/pip/install --no-deps ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
      -r /opt/venv/torch.txt \
    && if grep --quiet '^Requires-Dist: triton' /opt/venv/lib/*/site-packages/torch-*/METADATA; \
       then echo "this torch is for CUDA: TORCH_INDEX_URL must name an index of CPU builds" >&2; \
            exit 1; fi
COPY requirements/cpu.txt /opt/venv/rest.txt
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=wheels,target=/run/pip/wheels \
    --mount=type=cache,target=/run/pip/cache \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/pip/install --no-deps --require-hashes -r /opt/venv/rest.txt
COPY --from=code /layer/ /
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
LABEL org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
# Labels can't be read from inside: the adapter's provenance takes them from here.
ENV OCI_IMAGE_REVISION="$REVISION" \
    OCI_IMAGE_SOURCE="$SOURCE"
USER 10001:0

# Triton compiles a small library against the node's driver when it starts.
FROM runtime AS compiler
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ gcc libc6-dev \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

FROM compiler AS gpu
# The locked build is for CUDA 13 (driver 580 or newer). For an older driver name PyTorch's index
# for it: the same versions, then, with the CUDA libraries that they ask for, and without hashes.
ARG TORCH_INDEX_URL=""
COPY --from=lists /lists/torch.txt /opt/venv/torch.txt
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=wheels,target=/run/pip/wheels \
    --mount=type=cache,target=/run/pip/cache \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    if [ -z "$TORCH_INDEX_URL" ]; then \
      /opt/pip/install --no-deps --require-hashes -r /opt/venv/torch.txt; \
    else \
      sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' /opt/venv/torch.txt > "$TMPDIR/torch" \
      && sed -nE 's/^(xformers==[^ ]+).*/\1/p' /opt/venv/torch.txt > "$TMPDIR/xformers" \
      && /opt/pip/install --extra-index-url "$TORCH_INDEX_URL" -r "$TMPDIR/torch" \
      && /opt/pip/install --no-deps --index-url "$TORCH_INDEX_URL" -r "$TMPDIR/xformers" \
      && rm "$TMPDIR/torch" "$TMPDIR/xformers"; \
    fi
COPY --from=lists /lists/rest.txt /opt/venv/rest.txt
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=wheels,target=/run/pip/wheels \
    --mount=type=cache,target=/run/pip/cache \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/pip/install --no-deps --require-hashes -r /opt/venv/rest.txt
COPY --from=code /layer/ /
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
LABEL org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
# Labels can't be read from inside: the adapter's provenance takes them from here.
ENV OCI_IMAGE_REVISION="$REVISION" \
    OCI_IMAGE_SOURCE="$SOURCE"
USER 10001:0
