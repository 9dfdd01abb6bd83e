#!/usr/bin/env bash
# The installed package as another program uses it: installs into an empty folder, builds the
# examples there by CMake and by pkg-config, runs them, and looks at what the library shows and needs.
#
#   install_test.sh BUILD_DIR SOURCE_DIR CMAKE CC CXX
set -euo pipefail
export LC_ALL=C.UTF-8
build=$1 source=$2 cmake=$3 cc=$4 cxx=$5

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "install_test: $*" >&2
    exit 1
}
prefix=$work/prefix
"$cmake" --install "$build" --prefix "$prefix" >"$work/install.log"
libdir=$(dirname "$(find "$prefix" -name libdsa.so)")
[[ -n $libdir ]] || fail "no libdsa.so among: $(find "$prefix" -type f)"

# ---- the examples, outside of the tree ----
cp -r "$source/examples" "$work/examples"
"$cmake" -S "$work/examples" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" >"$work/cmake.log" ||
    fail "$(cat "$work/cmake.log")"
"$cmake" --build "$work/build" >"$work/build.log" || fail "$(cat "$work/build.log")"
model=$prefix/share/dsa/models/dsa-mini
for program in embed_cpp embed_c; do
    "$work/build/$program" "$model" >"$work/$program.txt" 2>"$work/err" || fail "$(cat "$work/err")"
    grep -qE "^logit [0-9.]+ for '" "$work/$program.txt" || fail "$program: no logits"
    [[ $(grep -v '^logit' "$work/$program.txt") =~ [a-z]{3} ]] || fail "$program: no reply"
    [[ ! -s $work/err ]] || fail "$program: the library printed $(cat "$work/err")"
done
echo "--- embed_cpp:"
cat "$work/embed_cpp.txt"
cmp <(grep -v '^logit' "$work/embed_cpp.txt") <(grep -v '^logit' "$work/embed_c.txt") ||
    fail "C and C++ got different replies"
if "$work/build/embed_c" "$work/nothing" 2>"$work/err"; then fail "opened a model that is not there"; fi
grep -q "not found: .*nothing" "$work/err" || fail "error of embed_c: $(cat "$work/err")"

export PKG_CONFIG_PATH=$libdir/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs dsa)"
"$cc" -std=c11 -Wall -Wextra -Werror -pedantic "$source/examples/embed.c" "${flags[@]}" -o "$work/by_pkg_config"
LD_LIBRARY_PATH=$libdir "$work/by_pkg_config" "$model" | cmp - "$work/embed_c.txt" ||
    fail "built by pkg-config: another reply"

# ---- what the library shows and needs ----
nm -D --defined-only "$libdir/libdsa.so" | c++filt | cut -d' ' -f3- >"$work/symbols"
public='^(dsa_[a-z_]+|(typeinfo|typeinfo name|vtable) for dsa::(Error|Tokenizer)|'
public+='dsa::(Engine|LimitMeter|Session|Sampler|StreamDecoder|Tokenizer|SafetensorsFile|Error)::[^:]+.*|'
public+='dsa::(default_context_length|encode_chat|inspect_model|open_tokenizer|parse_reply|plan_memory|to_string|token_cost)[(].*)'
public+='@@DSA_[0-9.]+$|^DSA_[0-9.]+$'
if grep -vE "$public" "$work/symbols"; then fail "the symbols above are not public"; fi
declared=$(grep -oE '\bdsa_[a-z_]+\(' "$prefix/include/dsa/dsa.h" | tr -d '(' | sort -u)
shown=$(grep -oE '^dsa_[a-z_]+' "$work/symbols" | sort -u)
[[ $declared == "$shown" ]] || fail "dsa.h and the library differ: $(diff <(echo "$declared") <(echo "$shown"))"
echo "--- libdsa.so shows $(wc -l <"$work/symbols") symbols, $(wc -l <<<"$shown") of them of the C interface"

needs=$(objdump -p "$libdir/libdsa.so" | awk '/NEEDED/ {print $2}' | sort | tr '\n' ' ')
echo "--- libdsa.so needs $needs"
for library in $needs; do
    case $library in
        libsentencepiece.so.0 | libstdc++.so.6 | libm.so.6 | libgcc_s.so.1 | libc.so.6 | ld-linux*) ;;
        *) fail "libdsa.so needs $library" ;;
    esac
done
[[ $(objdump -p "$libdir/libdsa.so" | awk '/SONAME/ {print $2}') =~ ^libdsa\.so\.[0-9.]+$ ]] || fail "no soname"

# ---- the program, moved ----
mv "$prefix" "$work/elsewhere"
"$work/elsewhere/bin/dsa" generate --prompt "Hello" -n 4 >"$work/out" 2>"$work/err" ||
    fail "dsa from a moved prefix: $(cat "$work/err")"
[[ -s $work/out ]] || fail "dsa from a moved prefix wrote nothing"
