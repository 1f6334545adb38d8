#!/usr/bin/env bash
# Every GPU figure of bench/RESULTS.md in one call of less than ten minutes, on a machine with an NVIDIA GPU.
#   bench/gpu.sh [OUT]          OUT: folder for the JSON files and logs (default bench/out)
#   bench/gpu.sh --dry-run      the same walk at tiny size, on a CPU too; RESULTS.md is left alone
# Needs: the package and a CUDA build of torch. TensorRT, TensorRT-RTX: used where they are installed.
# Other versions of TensorRT-RTX to try on this GPU: put their wheels, whole or cut by `split` into *.whl.00, *.whl.01,
# ..., under bench/wheels/VERSION/.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
dry=; out=bench/out
case "${1:-}" in --dry-run) dry=--dry-run ;; ?*) out=$1 ;; esac
mkdir -p "$out"
started=$SECONDS
left() { echo $((${LIMIT_S:-560} - SECONDS + started)); }
export SALMONN_ENGINES="$out/engines"
profile=video_salmonn_s_8b; [ -z "$dry" ] || profile=tiny

echo "== what is here"
"$python" -m salmonn_node.cli doctor | tee "$out/doctor.txt"

echo "== does a toy plan run on this GPU?"
: >"$out/probe.jsonl"
for flavour in tensorrt tensorrt_rtx; do
    timeout 120 "$python" -m salmonn_node.engines.probe "$flavour" 2>>"$out/probe.log" | tee -a "$out/probe.jsonl"
done
for folder in bench/wheels/*/; do
    [ -d "$folder" ] || continue
    version=$(basename "$folder") unpacked=$(mktemp -d)
    for first in "$folder"*.whl.00; do [ ! -e "$first" ] || cat "${first%.00}".[0-9]* >"$unpacked/$(basename "${first%.00}")"; done
    cp "$folder"*.whl "$unpacked"/ 2>/dev/null
    for wheel in "$unpacked"/*.whl; do "$python" -m zipfile -e "$wheel" "$unpacked/site"; done
    echo "-- tensorrt_rtx $version"
    PYTHONPATH="$unpacked/site:.${PYTHONPATH:+:$PYTHONPATH}" timeout 120 "$python" -m salmonn_node.engines.probe tensorrt_rtx \
        2>>"$out/probe.log" | tee -a "$out/probe.jsonl"
    rm -rf "$unpacked"
done

if grep -q '"stage": "equal"' "$out/probe.jsonl"; then
    for flavour in $(sed -n 's/.*"flavour": "\([a-z_]*\)".*"stage": "equal".*/\1/p' "$out/probe.jsonl" | sort -u); do
        echo "== plans with $flavour: build, compare with torch"
        timeout $(($(left) / 2)) "$python" -m salmonn_node.cli engines build --profile "$profile" --flavour "$flavour" --seeds 0 \
            2>&1 | tee "$out/build_$flavour.log"
    done
fi

echo "== figures ($(left) s left)"
timeout "$(left)" "$python" -m salmonn_node.cli bench gpu $dry --json "$out/gpu.json" 2>&1 | tee "$out/gpu.log"
status=$?
if [ -z "$dry" ] && [ -s "$out/gpu.json" ]; then
    "$python" -c "import json,sys; f=json.load(open(sys.argv[1])); json.dump(f['gpu'], open(sys.argv[2],'w'), indent=1)" \
        "$out/gpu.json" "$out/figures.json"
    "$python" -m salmonn_node.lab.bench.gpu_report "$out/figures.json" bench/RESULTS.md && echo "bench/RESULTS.md is up to date"
fi
exit $status
