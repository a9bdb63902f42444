# N4 bias field correction over BIDS datasets. One image for CPU and NVIDIA GPU:
#   docker build -t n4ax-bids .
# and a small one without CUDA's libraries:
#   docker build --build-arg JAX=cpu -t n4ax-bids:cpu .

FROM debian:trixie-slim AS base
# Debian keeps only the newest point release of a package: a version written here would break the
# build as soon as there is a security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM base AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ARG JAX=cuda12
COPY pyproject.toml /src/
COPY container /src/container
RUN /src/container/python.sh dependencies "$JAX"

FROM dependencies AS package
COPY . /src
RUN /src/container/python.sh package /package

FROM base
ARG JAX=cuda12
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="n4ax-bids" \
      org.opencontainers.image.description="N4 bias field correction of BIDS datasets, on CPU or GPU" \
      org.opencontainers.image.version="${VERSION}-${JAX}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The n4ax_bids contributors" \
      org.opencontainers.image.base.name="debian:trixie-slim"
# The package comes last: a change of the code alone is a small layer over the large one.
COPY --from=dependencies /opt/n4ax_bids /opt/n4ax_bids
COPY --from=package /package /
ENV PATH=/opt/n4ax_bids/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LC_ALL=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    N4AX_BIDS_DOCKER_TAG="n4ax-bids:${VERSION}-${JAX}"
ENTRYPOINT ["n4ax-bids"]
