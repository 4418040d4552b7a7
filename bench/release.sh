#!/usr/bin/env bash
# Builds the program as it is installed: by a profile of its own work, that of `make bench` and `make bench-node`.
#
#   bench/release.sh TARGET LOAD     leaves TARGET/shipped/bowline; LOAD is the program made of bench/load
#
# Where the compiler lacks llvm-profdata or llvm-nm it is the ordinary release build, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath --canonicalize-missing "$1")
load=$2
work=$target/shipped
host=$(rustc --version --verbose | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin

say() { echo "make release: $*" >&2; }

# build FOLDER FLAGS: a program for this very kind of machine, so that the flags are for it alone and not for what builds it.
build() {
    RUSTFLAGS="${RUSTFLAGS-} $2" CARGO_TARGET_DIR=$1 cargo build --release --bin bowline --target "$host"
}

train() {
    local program=$work/train/$host/release/bowline results
    results=$(mktemp -d)
    say 'a minute of work for the profile'
    python3 bench/macro/run.py --bowline "$program" --load "$load" --parts work --peers bowline \
        --rounds 1 --seconds 1 --out "$results/proxy" >"$results/log" 2>&1 &&
        python3 bench/node/run.py --bowline "$program" --peers bowline --rounds 1 --seconds 1 \
            --install-seconds 0 --content-rounds 0 --out "$results/node" >>"$results/log" 2>&1 || {
        tail -n 30 "$results/log" >&2
        say "that failed: $results/log"
        return 1
    }
    rm -r "$results"
}

# count_known PROGRAM: how many of our functions in it the profile knows. A function is known by a name in which its crate's
# profile of cargo has a part.
count_known() {
    comm -12 \
        <("$tools/llvm-profdata" show --all-functions "$work/profile.profdata" | sed -n 's/^  \(.*;\)\?\(_[^ ;]*bowline[^ ;]*\):$/\2/p' | sort -u) \
        <("$tools/llvm-nm" --format=just-symbols "$1" | grep bowline | sort -u) | wc -l
}

mkdir -p "$work"
if [ ! -x "$tools/llvm-profdata" ] || [ ! -x "$tools/llvm-nm" ]; then
    say 'this compiler has no llvm-profdata or llvm-nm (rustup: `rustup component add llvm-tools`): it is built without a profile'
    CARGO_TARGET_DIR=$target cargo build --release --bin bowline
    cp "$target/release/bowline" "$work/bowline"
    exit
fi
rm -rf "$work/counts"
# What is counted is counted before whole-program optimisation, which would only take its time here. It is the compiler that is
# told so: were it cargo, it would give every function another name, and the counts would be of functions nobody calls.
build "$work/train" "-Cprofile-generate=$work/counts -Clto=off -Clinker-plugin-lto=no"
train
"$tools/llvm-profdata" merge --output "$work/profile.profdata" "$work/counts"
# What is called often lies together.
build "$work/build" "-Cprofile-use=$work/profile.profdata -Clink-arg=-Wl,-z,keep-text-section-prefix"
program=$work/build/$host/release/bowline
known=$(count_known "$program")
if [ "$known" -lt 1000 ]; then
    say "the profile knows $known functions of the program: it was optimised by next to nothing"
    exit 1
fi
cp "$program" "$work/bowline"
say "$work/bowline, $known of its functions by the profile"
