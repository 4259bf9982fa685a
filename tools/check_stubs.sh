#!/usr/bin/env bash
# Fails when the committed stubs differ from what the contract generates. Argument: bin folder of the generator.
set -euo pipefail
cd "$(dirname "$0")/.."
generator=$(cd "$1" && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
PATH="$generator:$PATH" "$generator/python" -m grpc_tools.protoc -I protos \
  --python_out="$fresh" --grpc_python_out="$fresh" --mypy_out="quiet:$fresh" --mypy_grpc_out="quiet:$fresh" \
  protos/pointsman/v1/*.proto
for stub in "$fresh"/pointsman/v1/*; do
  if ! diff -q "$stub" "protos/pointsman/v1/$(basename "$stub")" >/dev/null; then
    echo "stub differs from the contract: protos/pointsman/v1/$(basename "$stub"); run: make protos" >&2
    exit 1
  fi
done
for stub in protos/pointsman/v1/*_pb2*; do
  if [ ! -e "$fresh/pointsman/v1/$(basename "$stub")" ]; then
    echo "stub without a contract: $stub; delete it" >&2
    exit 1
  fi
done
echo "stubs match the contract"
