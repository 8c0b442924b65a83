# Lockstep for CPUs. Build at the repository root:  docker build -f docker/cpu.Dockerfile -t lockstep .
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build libopenmpi-dev openmpi-bin libyaml-cpp-dev libdnnl-dev libfmt-dev nlohmann-json3-dev \
      libcli11-dev libxxhash-dev zlib1g-dev libpcre2-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DLOCKSTEP_TESTS=OFF -DLOCKSTEP_CUDA=OFF \
    && cmake --build /build --target lockstep_program

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
      openmpi-bin libopenmpi3 libyaml-cpp0.7 libdnnl2 libfmt9 libxxhash0 libgomp1 libpcre2-8-0 zlib1g bible-kjv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home lockstep
# The program finds its library by a path relative to itself: bin/ and lib/ stay side by side.
COPY --from=build /build/bin/lockstep /opt/lockstep/bin/lockstep
COPY --from=build /build/lib/liblockstep.so /opt/lockstep/lib/liblockstep.so
COPY examples /opt/lockstep/examples
RUN /opt/lockstep/examples/gpt_kjv/make_corpus.sh
ENV PATH=/opt/lockstep/bin:$PATH LD_LIBRARY_PATH=/opt/lockstep/lib
USER lockstep
WORKDIR /home/lockstep
CMD ["lockstep", "--help"]
