#!/usr/bin/env bash
# Proves that the build enforces who may include whom: with the include paths of each target, every
# allowed #include compiles and every forbidden one is not found.
#
#   include_graph.sh [--self-test] CXX SOURCE_ROOT INCLUDES [TARGET...]
#
# INCLUDES holds TARGET.txt for each target, one include path a line (guards.cmake writes them).
set -euo pipefail
export LC_ALL=C

# Modules whose public headers a target sees.
declare -A allowed=(
    [base]=""
    [gemm]="base"
    [indexer]="base gemm"
    [attention]="base gemm"
    [moe]="base gemm"
    [engine]="base gemm indexer attention moe"
    [program]=""
)
modules=(base gemm indexer attention moe engine)

self_test=false
[[ ${1:-} == --self-test ]] && { self_test=true; shift; }
[[ $# -ge 3 ]] || { echo "usage: $0 [--self-test] CXX SOURCE_ROOT INCLUDES [TARGET...]" >&2; exit 2; }
cxx=$1 source_root=$2 includes=$3
shift 3
targets=("$@")
[[ $# -gt 0 ]] || targets=("${modules[@]}" program)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Headers as they are named in an #include, one a line.
public_headers() { (cd "$source_root" && find "$1" -maxdepth 1 -name '*.h' | sort); }
private_headers() { (cd "$source_root" && find "$1" -mindepth 2 -name '*.h' ! -path '*/include/*' | sort); }
api_headers() { (cd "$source_root/$1/include" && find dsa -name '*.h' | sort); }

failures=0
checks=0
fail() {
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# compile TARGET [FLAG...] < source: with the include paths of the target; messages in $work/log.
compile() {
    local target=$1 path flags=()
    shift
    while IFS= read -r path; do
        # The compiler's own folders are in the paths of system packages too.
        [[ -n $path && $path != /usr/include && $path != /usr/local/include ]] && flags+=(-I "$path")
    done <"$includes/$target.txt"
    (cd "$work" && "$cxx" -std=c++20 -Wno-psabi -fsyntax-only -x c++ "$@" "${flags[@]}" -) >"$work/log" 2>&1
}

# Every header of the list $work/may compiles, all in one file.
check_found() {
    checks=$((checks + $(wc -l <"$work/may")))
    sed 's/.*/#include "&"/' "$work/may" | compile "$1" ||
        fail "$1 does not compile with all that it may include:"$'\n'"$(head -5 "$work/log")"
}

# Every header of the list $work/must_not is looked up in vain, and a real #include of the first of each
# folder does not compile. The system's folders are left out: an installed copy of the library does
# not count.
check_missing() {
    local header folder last=""
    checks=$((checks + $(wc -l <"$work/must_not")))
    sed 's/.*/#if __has_include("&")\n#error found: &\n#endif/' "$work/must_not" |
        compile "$1" -nostdinc || fail "$1 must not include:"$'\n'"$(cat "$work/log")"
    while IFS= read -r header; do
        folder=${header%/*}
        [[ $folder != "$last" ]] || continue
        last=$folder
        if echo "#include \"$header\"" | compile "$1" -nostdinc ||
            ! grep -qF -e "fatal error: $header: No such file" \
                -e "fatal error: '$header' file not found" "$work/log"; then
            fail "$1 must not include $header, but it is found"
        fi
    done <"$work/must_not"
}

check_target() {
    local target=$1 module
    if [[ ! -s $includes/$target.txt ]]; then
        fail "no include paths of $target in $includes"
        return
    fi
    api_headers base >"$work/may"
    : >"$work/must_not"
    for module in "${modules[@]}" apps; do
        if [[ " $target ${allowed[$target]} " == *" $module "* ]]; then
            public_headers "$module" >>"$work/may"
        else
            public_headers "$module" >>"$work/must_not"
        fi
        if [[ $target == "$module" ]]; then
            private_headers "$module" >>"$work/may"
        else
            private_headers "$module" >>"$work/must_not"
        fi
    done
    if [[ $target == engine || $target == program ]]; then
        api_headers engine >>"$work/may"
    else
        api_headers engine >>"$work/must_not"
    fi
    check_found "$target"
    check_missing "$target"
}

# A folder that moved must not turn its checks off.
check_headers_exist() {
    local module
    for module in "${modules[@]}"; do
        [[ -n $(public_headers "$module") ]] || fail "no public header in $source_root/$module"
    done
    [[ -n $(api_headers base) && -n $(api_headers engine) ]] || fail "no public API headers"
}

# The way around the include paths.
check_relative_includes() {
    local found
    checks=$((checks + 1))
    if found=$(cd "$source_root" && grep -rnE '^\s*#\s*include\s*["<]([^">]*/)?\.\./' \
        --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' "${modules[@]}" apps tests); then
        fail "an #include must not climb out of its folder:"$'\n'"$found"
    fi
}

# Both directions with paths that are wrong on purpose.
run_self_test() {
    local root
    expect_reject() {
        if "$0" "$cxx" "$source_root" "$work/includes" attention >"$work/self.log" 2>&1; then
            echo "FAIL: $1 was accepted" >&2
            exit 1
        elif ! grep -qE "$2" "$work/self.log"; then
            echo "FAIL: $1: no '$2' in:" >&2
            cat "$work/self.log" >&2
            exit 1
        fi
    }
    cp -r "$includes" "$work/includes"
    root=$(grep -E '/indexer$' "$includes/engine.txt")
    echo "$root" >>"$work/includes/attention.txt"
    expect_reject "attention with the root of indexer" "attention must not include indexer/indexer.h, but"
    root=$(grep -E '/gemm$' "$includes/engine.txt")
    grep -vxF "$root" "$includes/attention.txt" >"$work/includes/attention.txt"
    expect_reject "attention without the root of gemm" "attention does not compile .*"
    echo "$source_root" >>"$work/includes/attention.txt"
    expect_reject "attention with the root of the source" "error.*found: gemm/cpu/"
    echo "wrong include paths are rejected"
}

if $self_test; then
    run_self_test
    exit 0
fi
check_headers_exist
for target in "${targets[@]}"; do
    check_target "$target"
done
check_relative_includes
echo "$checks includes checked, $failures failures"
[[ $failures -eq 0 ]]
