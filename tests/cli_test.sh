#!/bin/bash
# End-to-end test of the built program. Needs bash, grep and sed only.
#
#   cli_test.sh PROGRAM MODELS [GROUP]...
#
# unit: usage, errors, info, verify, bench (tiny checkpoints); model: generate, chat, file (replies of
# MODELS/dsa-mini). Each part is a group of its own too; without any, all. Says what failed and
# exits 1 if anything did.
set -u

program=$1
models=$2
shift 2
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(unit model)

golden=$(cd "$(dirname "$0")" && pwd)/golden
mini=$models/dsa-mini
tiny=$golden/checkpoints/tiny-planted
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
checks=0

# run ARGUMENTS...: runs the program; stdin from $work/in (empty unless `input` was called).
run() {
    shown="dsa $*"
    "$program" "$@" < "$work/in" > "$work/out" 2> "$work/err"
    rc=$?
    : > "$work/in"
}
input() { printf '%s\n' "$@" > "$work/in"; }
: > "$work/in"

check() { # TEXT COMMAND...
    local text=$1
    shift
    checks=$((checks + 1))
    "$@" && return
    failures=$((failures + 1))
    echo "FAILED: $shown: expected $text (exit code $rc)"
    sed 's/^/    stdout: /' "$work/out" | head -20
    sed 's/^/    stderr: /' "$work/err" | head -20
}
code() { check "exit code $1" [ "$rc" -eq "$1" ]; }
out() { check "stdout with /$1/" grep -Eq -e "$1" "$work/out"; }
out_not() { check "stdout without /$1/" sh -c '! grep -Eq -e "$1" "$2"' - "$1" "$work/out"; }
err() { check "stderr with /$1/" grep -Eq -e "$1" "$work/err"; }
err_lines() { check "$1 lines on stderr" [ "$(wc -l < "$work/err")" -eq "$1" ]; }
out_lines() { check "$1 lines on stdout" [ "$(wc -l < "$work/out")" -eq "$1" ]; }
# line N of stdout is exactly TEXT
out_line() { check "line $1 of stdout: $2" [ "$(sed -n "${1}p" "$work/out")" = "$2" ]; }

# usage PATTERN ARGUMENTS...: wrong usage, one line that says PATTERN.
usage() {
    local pattern=$1
    shift
    run "$@"
    code 2
    err_lines 1
    err "^dsa: usage: .*$pattern"
    out_lines 0
}
# fails PATTERN ARGUMENTS...: an error, one line that says PATTERN.
fails() {
    local pattern=$1
    shift
    run "$@"
    code 1
    err_lines 1
    err "^dsa: error: .*$pattern"
    out_lines 0
}

test_usage() {
    run
    code 2
    err "chat"
    run --version
    code 0
    out "^dsa [0-9]+\.[0-9]+\.[0-9]+$"
    run --help
    code 0
    out "^Example:"
    local command
    for command in chat generate info verify bench; do
        run "$command" --help
        code 0
        out "^Example:"
        check "the example as the last line" \
            sh -c 'grep -v "^$" "$1" | tail -n 1 | grep -q "^  dsa $2"' - "$work/out" "$command"
        out "--memory-limit"
        usage "fp16" "$command" --precision fp16
        usage "ctx" "$command" --ctx 0
        usage "isa" "$command" --isa sse9
        usage "threads" "$command" --threads -1
        usage "memory-limit" "$command" --memory-limit lots
        usage "no-such-flag" "$command" --no-such-flag
    done
    usage "" frobnicate
    usage "temperature" chat --temperature -1
    usage "temperature" chat --temperature warm
    usage "top_p" generate --prompt hi --top-p 1.5
    usage "top_k" generate --prompt hi --top-k -1
    usage "--prompt" generate
    usage "--prompt" generate --file "$0"
    usage "--raw" generate --prompt hi --raw --thinking
    usage "--case" verify
    usage "--reference" verify --case "$golden/tiny-planted" --steps all
    usage "wrong" verify --case "$golden/tiny-planted" --reference --steps act,wrong
    usage "MODEL|model" info "$tiny" --model "$tiny"
    usage "FOLDER" synth b1
    usage "depths" bench --depths -1
    usage "decode" bench --decode 0
}

test_errors() {
    local command
    for command in chat "generate --prompt hi" info "verify --case $golden/tiny-planted"; do
        # shellcheck disable=SC2086
        fails "no-such-folder" $command --model "$work/no-such-folder"
        mkdir -p "$work/empty"
        # shellcheck disable=SC2086
        fails "config.json" $command --model "$work/empty"
    done
    fails "tokenizer" chat --model "$tiny"
    fails "tokenizer" generate --prompt hi --model "$tiny"
    fails "200000" info "$tiny" --ctx 200000
    fails "no-such-case" verify --model "$tiny" --case "$work/no-such-case"
    fails "expected" verify --model "$golden/checkpoints/tiny-rand" --case "$golden/tiny-planted"
    cp -r "$tiny" "$work/cut"
    head -c 1000 "$tiny/model-00001-of-00002.safetensors" \
        > "$work/cut/model-00001-of-00002.safetensors"
    fails "model-00001-of-00002.safetensors" info "$work/cut"
    fails "needs [0-9.]+ MiB .*1.0 MiB are allowed" verify --model "$tiny" \
        --case "$golden/tiny-planted" --memory-limit 1M
}

test_info() {
    run info "$tiny"
    code 0
    out "^architecture +DeepseekV32ForCausalLM"
    out "F8_E4M3"
    out "<- opens with this"
    run info --model "$tiny" --json
    code 0
    out '"index_topk": 64'
    out '"kv_cache": [0-9]+'
    out '"tokenizer": false'
    out_not '"measured"'
    run info "$tiny" --measure --ctx 256 --threads 2
    code 0
    out "^measured: 256 tokens, .*bf16, 2 threads"
    out "^open +[0-9.]+ s"
    out "^peak of the process \(VmHWM\) .*[0-9.]+$"
    run info "$tiny" --measure --ctx 256 --precision fp8 --reference --json
    code 0
    out '"open_seconds": [0-9.e-]+'
    out '"reference": true'
    out '"ratio": [0-9.]+'
}

test_verify() {
    local case=$golden/tiny-planted
    run verify --model "$tiny" --case "$case" --reference --max-abs 2e-4 --max-rel 1e-5 \
        --max-kl 1e-9 --max-hidden 1e-4 --max-nll 1e-4 --max-topk-diff 0 --min-recall 1 \
        --min-argmax 32
    code 0
    err_lines 0
    out "^tiny-planted .*argmax 32/32 .*topk_differ 0/708"
    run verify --model "$tiny" --case "$case" --max-rel 0.025 --max-kl 0.0015 --max-topk-diff 0
    code 0
    run verify --model "$tiny" --case "$case" --max-rel 1e-9 --min-argmax 33
    code 3
    err_lines 2
    err "^dsa: verify: tiny-planted: logits_rel .* above --max-rel"
    err "^dsa: verify: all cases: argmax .* below --min-argmax 33"
    run verify --model "$tiny" --case "$case" --json --chunk 7 --max-kl 0
    code 3
    out '"case": "tiny-planted"'
    out '"argmax_steps": 32'
    out '"violations": \['
}

# A preset with random weights, then speed beside the limits.
test_bench() {
    sed -e 's/^vocab_size:.*/vocab_size: 300/' -e 's/^hidden_size:.*/hidden_size: 192/' \
        -e 's/^num_hidden_layers:.*/num_hidden_layers: 2/' \
        -e 's/^n_routed_experts:.*/n_routed_experts: 8/' \
        "$golden/../../configs/models/b1.yaml" > "$work/small.yaml"
    run synth "$work/small.yaml" "$work/synthetic"
    code 0
    run info "$work/synthetic"
    code 0
    out "F8_E4M3"
    fails "new or empty folder" synth "$work/small.yaml" "$work/synthetic"
    fails "no-such-preset.*presets: .*b1" synth no-such-preset "$work/other"
    echo "hidden_size: [" > "$work/bad.yaml"
    fails "bad.yaml" synth "$work/bad.yaml" "$work/other"
    echo "hidden_size: 64" > "$work/short.yaml"
    fails "num_hidden_layers" synth "$work/short.yaml" "$work/other"
    run bench --model "$work/small.yaml" --depths 0,70 --prefill 16 --decode 4 --repeats 1 \
        --precision int8 --json -
    code 0
    out '"precision": "int8"'
    out '"read_gbs": [0-9.]+'
    out '"depth": 70'
    out '"decode_limit_tps": [0-9.]+'
    run bench --model "$work/synthetic" --depths 0 --prefill 8 --decode 2 --repeats 1
    code 0
    out "^ +depth +prefill tok/s"
    fails "presets: " bench --model no-such-preset
}

# Two turns in one conversation, through a pipe.
test_chat() {
    input "Hello, my name is Clara." "What is my name?"
    run chat --model "$mini" --ctx 2048 --temperature 0
    code 0
    err_lines 0
    out_lines 2
    out_line 2 "Your name is Clara."

    input "Hello, my name is Clara." "/reset" "What is my name?"
    run chat --model "$mini" --ctx 2048 --temperature 0
    code 0
    out_not "Your name is Clara"

    # What fails is said, and the conversation goes on.
    local long
    long=$(printf 'word %.0s' {1..300})
    input "/file $work/missing.txt" "/nonsense" "/set top_k many" "$long" \
        "Hello, my name is Clara." "What is my name?" "/exit" "What is my name?"
    run chat --model "$mini" --ctx 128 --temperature 0
    code 0
    err "missing.txt"
    err "/nonsense"
    err "top_k"
    err "context holds 128"
    out_line 2 "Your name is Clara."
    out_lines 2

    # The seed decides.
    local first
    input "/set temperature 1.5" "/set seed 7" "Tell me about yourself."
    run chat --model "$mini" --ctx 2048
    first=$(cat "$work/out")
    input "Tell me about yourself."
    run chat --model "$mini" --ctx 2048 --temperature 1.5 --seed 7
    check "the reply of the same seed" [ "$first" = "$(cat "$work/out")" ]
}

# Both questions about a long text. The second conversation finds the text in the cache.
test_file() {
    local folder=$golden/dsa-mini/recall-9000
    mapfile -t questions < <(sed -n 's/^ *"question": "\(.*\)",$/\1/p' "$folder/questions.json")
    mapfile -t answers < <(sed -n 's/^ *"answer": "\(.*\)",$/\1/p' "$folder/questions.json")
    input "/file $folder/document.txt" "${questions[0]}" "/reset" \
        "/file $folder/document.txt" "${questions[1]}" "/stats"
    run chat --model "$mini" --temperature 0
    code 0
    check "two questions" [ ${#questions[@]} -eq 2 ]
    out_lines 2
    out_line 1 "${answers[0]}"
    out_line 2 "${answers[1]}"
    err "document.txt: [0-9]+ tokens"
    err "DSA: 2048 of [0-9]+ tokens read"
}

test_generate() {
    run generate --model "$mini" --ctx 512 --prompt "Hello, who are you?" --temperature 0
    code 0
    out "DSA-Mini"
    run generate --model "$mini" --ctx 512 --prompt "Hello, who are you?" --temperature 0 -n 3 \
        --json
    code 0
    out '^\{$'
    out '^\}$'
    out '"prompt_tokens": [1-9][0-9]*,'
    out '"generated_tokens": 3,'
    out '"stop_reason": "max_tokens",'
    out '"seed": [0-9]+,'
    out '"text": "'
    run generate --model "$mini" --ctx 64 --raw --prompt "Once upon a time" --json --seed 1
    code 0
    out '"stop_reason": "(context_full|end_token)"'
    fails "[0-9]+ tokens; the context holds 1024" generate --model "$mini" --ctx 1024 \
        --file "$golden/dsa-mini/recall-3000/document.txt" --prompt "Who?"
    fails "missing.txt" generate --model "$mini" --file "$work/missing.txt" --prompt "Who?"
    fails "16384" generate --model "$mini" --ctx 20000 --prompt hi
    fails "needs [0-9.]+ MiB .*4.0 MiB are allowed" generate --model "$mini" --memory-limit 4M \
        --prompt hi
}

for group in "${groups[@]}"; do
    case $group in
        unit) tests="usage errors info verify bench" ;;
        model) tests="generate chat file" ;;
        usage | errors | info | verify | bench | generate | chat | file) tests=$group ;;
        *)
            echo "unknown group $group" >&2
            exit 2
            ;;
    esac
    for name in $tests; do "test_$name"; done
done
echo "$checks checks, $failures failed"
[ "$failures" -eq 0 ]
