# Lockstep for NVIDIA GPUs. Build at the repository root:  docker build -f docker/cuda.Dockerfile -t lockstep:cuda .
# Debian 12 as everywhere, with NVIDIA's own packages beside its compiler. The host needs a driver for CUDA 13 (580 or
# newer) and NVIDIA's container toolkit.
FROM debian:12-slim AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates wget \
    && wget -qO /tmp/keyring.deb \
         https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb \
    && dpkg -i /tmp/keyring.deb && rm -rf /tmp/keyring.deb /var/lib/apt/lists/*

FROM cuda AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build libopenmpi-dev openmpi-bin libyaml-cpp-dev libdnnl-dev libfmt-dev nlohmann-json3-dev \
      libcli11-dev libxxhash-dev zlib1g-dev libpcre2-dev \
      cuda-nvcc-13-0 cuda-cudart-dev-13-0 libcublas-dev-13-0 libcudnn9-dev-cuda-13 libnccl-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/cuda-13.0/bin:$PATH
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DLOCKSTEP_TESTS=OFF -DLOCKSTEP_CUDA=ON \
    && cmake --build /build --target lockstep_program lockstep_cuda

FROM cuda
RUN apt-get update && apt-get install -y --no-install-recommends \
      openmpi-bin libopenmpi3 libyaml-cpp0.7 libdnnl2 libfmt9 libxxhash0 libgomp1 libpcre2-8-0 zlib1g bible-kjv \
      libcublas-13-0 libcudnn9-cuda-13 libnccl2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home lockstep
# The program finds its library, and that the CUDA module, by paths relative to themselves: bin/ and lib/ stay side by side.
COPY --from=build /build/bin/lockstep /opt/lockstep/bin/lockstep
COPY --from=build /build/lib/liblockstep.so /build/lib/liblockstep_cuda.so /opt/lockstep/lib/
COPY examples /opt/lockstep/examples
COPY tools/gpu_check.sh /opt/lockstep/tools/gpu_check.sh
RUN /opt/lockstep/examples/gpt_kjv/make_corpus.sh
# What NVIDIA's container toolkit hands in: the driver's libraries and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/lockstep/bin:$PATH LD_LIBRARY_PATH=/opt/lockstep/lib:/usr/local/cuda-13.0/lib64
USER lockstep
WORKDIR /home/lockstep
CMD ["lockstep", "--help"]
