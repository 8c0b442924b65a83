#!/usr/bin/env bash
# Fails if a program or library of a build has a run path with an empty or relative entry: the loader would look in the
# current folder.
set -euo pipefail

usage='usage: tools/check_run_paths.sh BUILD_FOLDER'
case ${1-} in
  -h | --help) echo "$usage" && exit 0 ;;
  '' | -*) echo "$usage" >&2 && exit 2 ;;
esac
looked=0 bad=0
for file in "$1"/bin/* "$1"/lib/*.so; do
  [[ -f $file && -x $file ]] || continue
  looked=$((looked + 1))
  path=$(readelf -d "$file" | sed -nE 's/.*(RUNPATH|RPATH).*\[(.*)\]$/\2/p')
  [[ -n $path ]] || continue
  while IFS= read -r -d: entry; do
    if [[ $entry != /* && $entry != '$ORIGIN'* ]]; then
      echo "$file: the run path '$path' has the entry '$entry'"
      bad=$((bad + 1))
    fi
  done <<<"$path:"
done
((looked > 0)) || { echo "$1: no program or library here" >&2 && exit 2; }
((bad == 0)) || exit 1
echo "$looked files, no run path names the current folder"
