#!/usr/bin/env bash
# Writes kjv.txt beside this script: the King James Bible, one verse a line without its reference, from Debian's
# package bible-kjv.
set -euo pipefail
cd "$(dirname "$0")"

expected_bytes=4137850
if [[ -f kjv.txt && $(wc -c <kjv.txt) -eq $expected_bytes ]]; then
  echo "kjv.txt is there: $expected_bytes bytes"
  exit 0
fi
command -v bible >/dev/null || {
  echo "make_corpus.sh: error: the program 'bible' is missing: apt-get install bible-kjv" >&2
  exit 1
}
bible -f 'gen1:1-rev22:21' </dev/null | sed -E 's/^[^ ]+ //' >kjv.txt.part
bytes=$(wc -c <kjv.txt.part)
if ((bytes != expected_bytes)); then
  echo "make_corpus.sh: error: the text has $bytes bytes, but that of bible-kjv 4.38 has $expected_bytes" >&2
  echo "  It was left in $PWD/kjv.txt.part; losses would not compare with those of the README." >&2
  exit 1
fi
mv kjv.txt.part kjv.txt
echo "kjv.txt: $bytes bytes"
