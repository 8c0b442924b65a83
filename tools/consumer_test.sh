#!/usr/bin/env bash
# Installs a build into a scratch prefix, then configures, builds and runs examples/cpp_api there as a project that knows
# nothing of this checkout: what a user of the library does.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/lib.sh
source tools/lib.sh

usage='usage: tools/consumer_test.sh BUILD_FOLDER'
case ${1-} in
  -h | --help) echo "$usage" && exit 0 ;;
  '' | -*) echo "$usage" >&2 && exit 2 ;;
esac
build=$(realpath "$1")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-consumer-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
use_ccache

say 'install'
cmake --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
cp -r examples/cpp_api "$scratch/project"
cd "$scratch/project"
export PATH=$scratch/prefix/bin:$PATH
lockstep --version

say 'build the project'
cmake -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$scratch/prefix" >configure.log || {
  cat configure.log
  exit 1
}
cmake --build build

# expect TEXT FILE
expect() { grep -qF -- "$1" "$2" || { cat "$2"; die "no '$1' in the output"; }; }
launch=(mpirun --oversubscribe -n 2)

say 'the library of safetensors files alone'
mkdir tensors
cat >tensors/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(tensors LANGUAGES CXX)
find_package(lockstep REQUIRED)
add_executable(tensors tensors.cpp)
target_link_libraries(tensors PRIVATE lockstep::safetensors)
CMAKE
cat >tensors/tensors.cpp <<'CPP'
#include <cstdio>

#include "safetensors/file.hpp"

int main() {
  using namespace lockstep::safetensors;
  const float values[] = {1, 2, 3};
  Writer writer("three.safetensors", {{.name = "w", .shape = {3}}}, {});
  writer.write(values, sizeof values);
  (void)writer.finish();
  std::printf("%zu tensor\n", File("three.safetensors").header().tensors.size());
}
CPP
cmake -S tensors -B tensors/build -DCMAKE_PREFIX_PATH="$scratch/prefix" >tensors.log
cmake --build tensors/build >>tensors.log || { cat tensors.log; exit 1; }
tensors/build/tensors >tensors.out
expect '1 tensor' tensors.out
if ldd tensors/build/tensors | grep -q libmpi; then die 'lockstep::safetensors needs MPI'; fi

say 'a custom operation against finite differences'
build/squared_relu | tee squared_relu.log
expect '48 elements' squared_relu.log

say 'managed and user-managed schedulers'
lockstep config job.yaml >config.log
"${launch[@]}" build/spirals job.yaml >managed.log
expect 'step 400' managed.log
mv runs managed
"${launch[@]}" build/spirals job.yaml --user-managed >user.log
cmp managed.log user.log || die 'a program that steps the schedule after every step trained otherwise than the engine'
tail -n 3 user.log

say 'save and load'
rm -r runs/job/checkpoints/step-400
"${launch[@]}" build/spirals job.yaml --user-managed >resumed.log
expect 'going on from runs/job/checkpoints/step-300: validation loss' resumed.log
cmp <(grep -A9 'step 350' managed.log) <(grep -A9 'step 350' resumed.log) || die 'the resumed run is another one'

say 'errors'
status=0
sed 's/custom}/mlp}/;s/data: .*/data: {type: clusters}/' job.yaml >mlp.yaml
"${launch[@]}" build/spirals mlp.yaml >errors.log 2>&1 || status=$?
((status == 2)) || die "model.type mlp ended with $status"
expect 'this program brings a model of its own' errors.log
lockstep train job.yaml >errors.log 2>&1 && die 'lockstep trained a model that it does not have'
expect 'the data are those of a program of your own' errors.log
echo 'the project that uses the installed library works'
