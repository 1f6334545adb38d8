#!/bin/bash
# Peak memory, seconds and error of the logits for full, int8 and int4 weights: bench/footprint.sh FOLDER [TOKENS]
# Make FOLDER with `python -m salmonn_node.lab.random_weights 2b FOLDER`, or give a published checkpoint by name.
set -euo pipefail
folder=$1 tokens=${2:-2048} out=$(mktemp -d)
for weights in full int8 int4; do
    salmonn bench footprint --threads 1 --checkpoint "$folder" --visual-tokens "$tokens" --weights "$weights" \
        --logits "$out/logits.safetensors" --json "$out/$weights.json"
done
echo "figures: $out"
