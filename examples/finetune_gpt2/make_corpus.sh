#!/usr/bin/env bash
# Writes austen.txt beside this script: Jane Austen's six novels, from Debian's package r-cran-janeaustenr.
set -euo pipefail
cd "$(dirname "$0")"

expected_bytes=4025029
if [[ -f austen.txt && $(wc -c <austen.txt) -eq $expected_bytes ]]; then
  echo "austen.txt is there: $expected_bytes bytes"
  exit 0
fi
command -v Rscript >/dev/null || {
  echo "make_corpus.sh: error: Rscript is missing: apt-get install r-cran-janeaustenr" >&2
  exit 1
}
Rscript -e 'books <- c("sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion")
            writeLines(unlist(lapply(books, function(book) getExportedValue("janeaustenr", book))), "austen.txt.part")'
bytes=$(wc -c <austen.txt.part)
if ((bytes != expected_bytes)); then
  echo "make_corpus.sh: error: the text has $bytes bytes, but that of janeaustenr 1.0.0 has $expected_bytes" >&2
  echo "  It was left in $PWD/austen.txt.part; losses would not compare with those of the README." >&2
  exit 1
fi
mv austen.txt.part austen.txt
echo "austen.txt: $bytes bytes"
