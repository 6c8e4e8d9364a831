#!/usr/bin/env bash
# Chromium and PostgreSQL, which some tests drive, from Debian's packages where they are missing and may be installed.
# Never fails: tests that still lack one of them are skipped and say so (`pytest -rs`).
set -u
missing=()
command -v chromium google-chrome >/dev/null || missing+=(chromium)
command -v postgres >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed: ${missing[*]} (this needs root and apt-get); their tests will be skipped"
  exit 0
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
{ timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/lmrec-apt.log 2>&1 \
  || echo "could not be installed: ${missing[*]}, see /tmp/lmrec-apt.log; their tests will be skipped"
exit 0
