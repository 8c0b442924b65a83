# Functions that the scripts of tools/ share. Sourced, never run; expects `set -euo pipefail`.
# shellcheck shell=bash disable=SC2034  # the lists are for the sourcing script

# Open MPI refuses to start as root, as in most containers, unless told twice that this is meant.
export OMPI_ALLOW_RUN_AS_ROOT=1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

build_packages=(
  g++ cmake ninja-build
  libopenmpi-dev openmpi-bin libyaml-cpp-dev libdnnl-dev libfmt-dev nlohmann-json3-dev libcli11-dev
  libxxhash-dev zlib1g-dev libpcre2-dev
)
test_packages=(libgtest-dev libgmock-dev clang-format-14 ccache python3 iproute2 slurm-wlm munge)
corpus_packages=(bible-kjv)
image_packages=(dataset-fashion-mnist)

say() { printf '\n== %s\n' "$*"; }

die() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

# install_missing INSTALL PACKAGE...: installs what apt does not have yet; with INSTALL=no only says what is missing.
install_missing() {
  local install=$1
  shift
  if ! command -v dpkg-query >/dev/null; then
    say "this system has no dpkg: nothing is installed"
    printf '  Needed are a C++20 compiler, CMake 3.25, Ninja and what these Debian packages hold:\n  %s\n' "$*"
    return
  fi
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return
  local command="apt-get install -y --no-install-recommends ${missing[*]}"
  if [[ $install == no ]]; then
    die "packages are missing, and --no-install was given" "Install them with:  $command"
  fi
  command -v apt-get >/dev/null || die "packages are missing, and there is no apt-get" "Missing: ${missing[*]}"

  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "packages are missing, and installing them needs root" "Run as root:  $command"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  local env=(env DEBIAN_FRONTEND=noninteractive)
  "${as_root[@]}" "${env[@]}" apt-get update -qq </dev/null ||
    printf '  apt-get update failed (no network?): trying with the package lists that are here\n' >&2
  # shellcheck disable=SC2086  # the words of the command
  "${as_root[@]}" "${env[@]}" $command -qq </dev/null >/dev/null ||
    die "apt-get could not install all packages; its message is above" \
      "Without a network, install them from a mirror or a medium, then run again with --no-install:" "$command"
}

# Ranks that Open MPI starts here without being told to oversubscribe: physical cores, at most the CPUs we may use.
usable_cores() {
  local cores cpus
  cpus=$(nproc)
  cores=$(lscpu -p=core,socket 2>/dev/null | grep -v '^#' | sort -u | wc -l) || cores=0
  if ((cores == 0 || cores > cpus)); then cores=$cpus; fi
  echo "$cores"
}

# Fills the array `launcher` with an mpirun command for N ranks.
set_launcher() {
  launcher=(mpirun -n "$1")
  if (($(usable_cores) < $1)); then launcher+=(--oversubscribe); fi
}

# Compiler launcher of every configure step from here on, where ccache is installed.
use_ccache() {
  command -v ccache >/dev/null || return 0
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache
}
