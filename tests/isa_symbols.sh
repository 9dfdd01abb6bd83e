#!/usr/bin/env bash
# A shared inline function that is compiled in a file with AVX-512 flags can be the copy that the linker
# picks for the portable path too. So objects with ISA flags must hold nothing that other objects may
# share (weak and unique symbols), call nothing of the C++ library, and run nothing at start-up.
#
#   isa_symbols.sh NM LIST ARCH BUILD_TYPE SANITIZE     LIST: source, tab, object, one a line
#   isa_symbols.sh --self-test NM CXX
set -euo pipefail
export LC_ALL=C

readonly skipped=77

# check_object NM OBJECT NAME: prints what is wrong with it.
check_object() {
    local symbols
    if [[ ! -f $2 ]]; then
        echo "$3: no object '$2'"
        return
    fi
    symbols=$("$1" -C "$2")
    if [[ -z $symbols ]]; then
        echo "$3: no symbols in $2"
        return
    fi
    awk -v name="$3" '
        {
            defined = match($0, /^[0-9a-f]+ /)
            line = defined ? substr($0, RLENGTH + 1) : $0
            sub(/^ +/, "", line)
            type = substr(line, 1, 1)
            symbol = substr(line, 3)
        }
        defined && type ~ /[WVuwv]/ {
            print name ": shared definition (" type "): " symbol
        }
        defined && symbol ~ /^_GLOBAL__(sub_)?I_/ {
            print name ": runs at start-up: " symbol
        }
        !defined && symbol !~ /^dsa::/ &&
        symbol !~ /^(mem(cpy|set|move|cmp)|__mem(cpy|set|move)_chk|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_)$/ {
            print name ": needs " symbol
        }' <<<"$symbols"
}

# check_list NM LIST ARCH
check_list() {
    local source object findings count=0
    findings=$(while IFS=$'\t' read -r source object; do
        check_object "$1" "$object" "$source"
    done <"$2")
    count=$(grep -c . "$2" || true)
    if [[ $count -eq 0 ]]; then
        if [[ $3 =~ ^(x86_64|AMD64)$ ]]; then
            echo "FAIL: no ISA objects in $2, expected some on $3" >&2
            return 1
        fi
        echo "skipped: no ISA files for $3"
        return $skipped
    fi
    if [[ -n $findings ]]; then
        echo "FAIL: ISA files must hold only what is theirs; use static inline functions:" >&2
        echo "$findings" >&2
        return 1
    fi
    echo "$count objects with ISA flags hold nothing shared"
}

self_test() {
    local nm=$1 cxx=$2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # expect ok|MESSAGE NAME < source
    expect() {
        local status=0
        "$cxx" -std=c++20 -O3 -x c++ -c - -o "$work/$2.o"
        printf '%s\t%s\n' "$2.cc" "$work/$2.o" >"$work/list"
        check_list "$nm" "$work/list" x86_64 >"$work/log" 2>&1 || status=$?
        if [[ $1 == ok && $status -eq 0 ]] || { [[ $status -eq 1 ]] && grep -qF "$1" "$work/log"; }; then
            return 0
        fi
        echo "FAIL: $2: status $status, expected $1, in:" >&2
        cat "$work/log" >&2
        exit 1
    }
    expect ok clean <<'END'
#include <cstdint>
#include <cstring>
namespace dsa::gemm {
float portable_tail(const float*, int64_t);
static inline float twice(float x) { return 2 * x; }
namespace { void clear(float* x, int64_t n) { std::memset(x, 0, static_cast<size_t>(n) * 4); } }
float kernel(float* x, int64_t n) { clear(x, n); return twice(x[0]) + portable_tail(x, n); }
}
END
    expect "shared definition (W): shared(int)" inline_function <<'END'
__attribute__((noinline)) inline int shared(int x) { return x * 3; }
int kernel(int x) { return shared(x); }
END
    expect "shared definition (W): int shared<int>(int)" function_template <<'END'
template <typename T> __attribute__((noinline)) T shared(T x) { return x * 3; }
int kernel(int x) { return shared(x); }
END
    expect "): table" inline_variable <<'END'
inline int table[4] = {1, 2, 3, 4};
int kernel(int x) { return table[x]++; }
END
    expect "needs std::" library_call <<'END'
#include <string>
void kernel(std::string& s, int n) { s.append(static_cast<size_t>(n), 'x'); }
END
    expect "needs operator new" allocation <<'END'
float* kernel(int n) { return new float[static_cast<unsigned>(n)]; }
END
    expect "runs at start-up" static_initialiser <<'END'
int source();
static int value = source();
int kernel() { return value; }
END
    printf 'gone.cc\t%s\n' "$work/gone.o" >"$work/list"
    if check_list "$nm" "$work/list" x86_64 >/dev/null 2>&1; then
        echo "FAIL: a missing object was accepted" >&2
        exit 1
    fi
    : >"$work/list"
    if check_list "$nm" "$work/list" x86_64 >/dev/null 2>&1; then
        echo "FAIL: an empty list was accepted on x86_64" >&2
        exit 1
    fi
    echo "shared symbols are found"
}

if [[ ${1:-} == --self-test && $# -eq 3 ]]; then
    self_test "$2" "$3"
    exit 0
fi
[[ $# -eq 5 ]] || { echo "usage: $0 NM LIST ARCH BUILD_TYPE SANITIZE | --self-test NM CXX" >&2; exit 2; }
if [[ $4 != Release || -n $5 ]]; then
    echo "skipped: only a Release build without sanitizers inlines what it can" \
        "(this one: '$4', sanitizers '$5')"
    exit $skipped
fi
check_list "$1" "$2" "$3"
