# syntax=docker/dockerfile:1
# One file for every service, from the repository's root:
#   docker build --build-arg SERVICE=classifier -t easel/classifier:0.1.0 .
# SERVICE is classifier, generator, ranker or gateway. Never built in our own checks, which have
# no container engine; tests/unit/k8s/test_dockerfile.py reads it instead.
ARG SERVICE
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
# More extras, as ",openvino" for a generator on x86 processors, ",postgres" for a ranker.
ARG EXTRAS=
# Where pip finds torch without CUDA; another index of pytorch.org gives a CUDA build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY easel ./easel
COPY services ./services
COPY ranker ./ranker
COPY gateway ./gateway
COPY models ./models
RUN python -m venv /opt/easel \
 && /opt/easel/bin/pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" \
      -c constraints.txt ".[${SERVICE}${EXTRAS}]"

# Only the installed packages go on, so that no checkout in the working directory shadows them.
FROM ${PYTHON_IMAGE} AS base
COPY --from=build /opt/easel /opt/easel
# OpenMP's threads spin while they wait, on cores that the container may not have: these spin from one
# operation of PyTorch's to the next, and then sleep.
ENV PATH=/opt/easel/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=10000
WORKDIR /tmp
USER 10001:10001

FROM base AS classifier
ENV EASEL_CLASSIFIER_PORT=50051 EASEL_CLASSIFIER_METRICS_PORT=9091
EXPOSE 50051 9091
ENTRYPOINT ["python", "-m", "services.classifier"]

FROM base AS generator
ENV EASEL_GENERATOR_PORT=50052 EASEL_GENERATOR_METRICS_PORT=9092
EXPOSE 50052 9092
ENTRYPOINT ["python", "-m", "services.generator"]

FROM base AS ranker
ENV EASEL_RANKER_PORT=50053 EASEL_RANKER_METRICS_PORT=9093
EXPOSE 50053 9093
ENTRYPOINT ["python", "-m", "ranker"]

FROM base AS gateway
ENV EASEL_GATEWAY_PORT=50050 EASEL_GATEWAY_METRICS_PORT=9090
EXPOSE 50050 9090
ENTRYPOINT ["python", "-m", "gateway"]

FROM ${SERVICE}
