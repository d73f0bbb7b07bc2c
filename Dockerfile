# A machine that trains and benchmarks: docker build -t fastresnet . ; docker run --rm -v $PWD/data:/fastresnet/data fastresnet
# With a GPU: docker build --build-arg BASE=nvidia/cuda:12.8.1-devel-ubuntu24.04 -t fastresnet . ; docker run --gpus all --rm ...
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
        git make g++ pkg-config libopencv-dev libturbojpeg0-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /fastresnet
COPY . .
RUN scripts/setup.sh
CMD ["make", "train"]
