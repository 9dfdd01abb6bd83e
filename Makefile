# The two commands that matter: `make chat` and `make test`. Everything else is below.

PRESET ?= release
BUILD := build/$(PRESET)
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)

BUILD_PACKAGES := g++ cmake ninja-build pkg-config libsentencepiece-dev libopenblas0 \
                  nlohmann-json3-dev libcli11-dev libedit-dev libyaml-cpp-dev libgtest-dev
BENCH_PACKAGES := libbenchmark-dev libdnnl-dev libopenblas-dev
LINT_PACKAGES := clang-format clang-tidy

.PHONY: build chat test test-asan test-tsan test-all bench cuda-bundle lint install format clean configure packages lint-packages

build: configure
	@cmake --build --preset $(PRESET) -j $(JOBS)

# The program alone is ready sooner than the tests.
chat: configure
	@cmake --build --preset $(PRESET) -j $(JOBS) --target dsa_program
	@$(BUILD)/apps/dsa chat

test: build
	@ctest --preset $(PRESET)

test-asan:
	@$(MAKE) --no-print-directory test PRESET=asan

test-tsan:
	@$(MAKE) --no-print-directory test PRESET=tsan

# Everything in the release build, and the fuzz targets for ten minutes each in the asan build.
test-all: build
	@ctest --preset all
	@$(MAKE) --no-print-directory build PRESET=asan
	@ctest --preset asan-fuzz

# Products against the machine's limits and other libraries, on the best ISA or the one that DSA_ISA
# names. OpenBLAS shall choose its own kernels. BENCH_FLAGS: --isa=NAME, --threads=N, and Google
# Benchmark's (--benchmark_filter=REGEX).
bench:
	@cmake/packages.sh $(BENCH_PACKAGES)
	@$(MAKE) --no-print-directory build
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BUILD)/tests/bench/gemm_bench $(BENCH_FLAGS)

# The GPU tests and the GPU benchmark in a folder that runs on any x86-64 Linux with a Hopper GPU and its driver.
cuda-bundle: configure
	@grep -q 'DSA_CUDA:BOOL=ON' $(BUILD)/CMakeCache.txt || \
	    { echo "No CUDA here: nvcc and libcudart_static.a were not found (docs/cuda.md)" >&2; exit 1; }
	@grep -q 'gemm_cuda_bench' $(BUILD)/build.ninja || \
	    { echo "gemm_cuda_bench is not built here: cupti.h was not found (docs/cuda.md)" >&2; exit 1; }
	@cmake --build --preset $(PRESET) -j $(JOBS) --target gemm_cuda_bench gemm_cuda_test
	@rm -rf $(BUILD)/cuda-bundle && mkdir -p $(BUILD)/cuda-bundle
	@cp $(BUILD)/tests/bench/cuda/gemm_cuda_bench $(BUILD)/tests/gemm_cuda_test $(BUILD)/cuda-bundle
	@echo $(BUILD)/cuda-bundle

# Style and the short list of clang-tidy; CI runs it too.
lint: lint-packages build
	@tests/lint.sh $(BUILD)

install: build
	@cmake --install $(BUILD) --prefix $(PREFIX)

format: lint-packages
	@git ls-files --cached --others --exclude-standard '*.h' '*.cc' | xargs clang-format -i

clean:
	@rm -rf build

configure: packages
	@cmake --preset $(PRESET) $(if $(CI),-DDSA_WERROR=ON) > $(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }

# Installs the Debian packages that are missing, and says which.
packages:
	@mkdir -p build
	@cmake/packages.sh $(BUILD_PACKAGES)

lint-packages:
	@cmake/packages.sh $(LINT_PACKAGES)
