#!/usr/bin/env bash
# Style: clang-format, clang-tidy (.clang-tidy), and rules that neither knows.
#
#   lint.sh BUILD_DIR     a configured tree, for its compile_commands.json
set -euo pipefail
export LC_ALL=C.UTF-8

[[ $# -eq 1 ]] || { echo "usage: $0 BUILD_DIR" >&2; exit 2; }
build=$(realpath "$1")
cd "$(dirname "$0")/.."
database=$build/compile_commands.json
[[ -f $database ]] || { echo "$database: not found; build first" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

# Tracked files and new ones that are not ignored, as far as they exist.
sources() {
    git ls-files --cached --others --exclude-standard -- "$@" | sort -u |
        while IFS= read -r file; do if [[ -f $file ]]; then echo "$file"; fi; done
}

# rule NAME FINDINGS: fails if there are any.
rule() {
    if [[ -n $2 ]]; then
        printf '== %s:\n%s\n' "$1" "$2"
        failed+=("$1")
    fi
}

check_format() {
    if ! xargs -d '\n' clang-format --dry-run -Werror <"$work/files" >"$work/format" 2>&1; then
        # Where only; other messages as they are.
        grep -oE '^[^: ]+:[0-9]+:[0-9]+: error: code should be' "$work/format" |
            cut -d: -f1,2 | sort -u -t: -k1,1 -k2,2n || cat "$work/format"
    fi
}

check_pragma_once() {
    sources '*.h' | { xargs -d '\n' grep -L '^#pragma once$' || true; }
}

# The library reports by exceptions only. Comments do not count.
check_silence() {
    local call='v?f?printf|f?puts|f?putc|putchar|perror|_?[eE]xit|quick_exit|abort|terminate|assert'
    local stream='std::(cout|cerr|clog)|std(out|err)'
    local file
    sources {base,gemm,indexer,attention,moe,engine}/'*.'{h,cc} >"$work/library"
    [[ -s $work/library ]] || echo "no files of the library under $PWD"
    while IFS= read -r file; do
        sed 's://.*$::' "$file" | { grep -nE "\\b(($call)[[:space:]]*\\(|($stream)\\b)" || true; } |
            sed "s|^|$file:|"
    done <"$work/library"
}

tidy() {
    local log
    if ! log=$(clang-tidy --quiet -p "$1" --extra-arg=-Wno-unknown-warning-option "$2" 2>&1); then
        echo "$log" | grep -vE '^[0-9]+ warnings?( and [0-9]+ errors?)? (generated|treated as errors)' ||
            echo "$2: clang-tidy failed without a message"
    fi
}
export -f tidy

# Files that this build compiles: those of another architecture have no flags to check them with.
check_tidy() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    xargs -d '\n' -P 2 -I '{}' bash -c 'tidy "$0" "$1"' "$build" '{}' <"$work/compiled"
}

sources '*.h' '*.cc' >"$work/files"
[[ -s $work/files ]] || { echo "no source files under $PWD: not a git checkout?" >&2; exit 2; }
sources '*.cc' | while IFS= read -r file; do
    if grep -qF "\"file\": \"$PWD/$file\"" "$database"; then echo "$file"; fi
done >"$work/compiled"
[[ -s $work/compiled ]] || { echo "$database names no source of $PWD" >&2; exit 2; }

findings=$(check_format)
rule "clang-format (make format)" "$findings"
findings=$(check_pragma_once)
rule "headers without #pragma once" "$findings"
findings=$(check_silence)
rule "the library must not print, exit or abort" "$findings"
start=$SECONDS
findings=$(check_tidy)
rule "clang-tidy" "$findings"

echo "lint: $(wc -l <"$work/files") files, $(wc -l <"$work/compiled") of them through clang-tidy" \
    "in $((SECONDS - start)) s"
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'lint failed: %s\n' "${failed[@]}"
    exit 1
fi
