#include "gemm/cuda/issue_order.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace dsa::gemm::cuda {
namespace {

constexpr size_t kInstructionBytes = 16;
constexpr int kReusesInARow = 3;
constexpr uint64_t kLongStall = 2;  // clocks until the warp's next instruction, where it yields

template <typename T>
T read(const unsigned char* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// An instruction of sm_90: 12 bits of opcode, registers, and from bit 105 on the control bits.
struct Instruction {
    uint64_t low = 0, high = 0;

    static Instruction at(const unsigned char* p) {
        return {read<uint64_t>(p), read<uint64_t>(p + 8)};
    }
    uint64_t target() const { return low >> 16 & 255; }
    uint64_t scale() const { return low >> 32 & 255; }  // operand b
    uint64_t addend() const { return high & 255; }
    bool promotes() const {
        constexpr uint64_t kFfmaOfRegisters = 0x223;
        return (low & 0xfff) == kFfmaOfRegisters && target() == addend();
    }

    static constexpr int kStall = 41, kStays = 45, kReuse = 58;  // in the high word
    uint64_t stall() const { return high >> kStall & 15; }
    void set_control(uint64_t stall, bool stays, bool reuses_b) {
        high &= ~(uint64_t{15} << kStall | uint64_t{1} << kStays | uint64_t{15} << kReuse);
        high |=
            stall << kStall | uint64_t{stays} << kStays | uint64_t{reuses_b ? 2U : 0U} << kReuse;
    }
};

void order(std::span<unsigned char> code) {
    int in_a_row = 0;
    for (size_t i = 0; i + 2 * kInstructionBytes <= code.size(); i += kInstructionBytes) {
        Instruction mine = Instruction::at(&code[i]);
        // Where ptxas waits longer it has a reason.
        if (!mine.promotes() || mine.stall() > kLongStall) {
            in_a_row = 0;
            continue;
        }
        const Instruction next = Instruction::at(&code[i + kInstructionBytes]);
        const bool goes_on = next.promotes() && next.scale() == mine.scale();
        const bool reuses = goes_on && in_a_row < kReusesInARow;
        in_a_row = reuses ? in_a_row + 1 : 0;
        const uint64_t stall = goes_on && !reuses ? kLongStall : mine.stall();
        mine.set_control(stall, reuses, reuses);
        std::memcpy(&code[i + 8], &mine.high, 8);
    }
}

// Calls f(section, name) for each section.
template <typename F>
void for_each_section(const unsigned char* cubin, const F& f) {
    const auto header = read<Elf64_Ehdr>(cubin);
    const auto section = [&](int i) {
        return read<Elf64_Shdr>(cubin + header.e_shoff +
                                static_cast<size_t>(i) * header.e_shentsize);
    };
    const auto names = section(header.e_shstrndx);
    for (int i = 0; i < header.e_shnum; ++i) {
        const Elf64_Shdr s = section(i);
        f(s, std::string_view(reinterpret_cast<const char*>(cubin + names.sh_offset + s.sh_name)));
    }
}

}  // namespace

size_t cubin_size(const unsigned char* cubin) {
    const auto header = read<Elf64_Ehdr>(cubin);
    size_t end = header.e_shoff + size_t{header.e_shnum} * header.e_shentsize;
    end = std::max(end, size_t{header.e_phoff} + size_t{header.e_phnum} * header.e_phentsize);
    for_each_section(cubin, [&](const Elf64_Shdr& s, std::string_view) {
        if (s.sh_type != SHT_NOBITS) end = std::max(end, size_t{s.sh_offset} + s.sh_size);
    });
    return end;
}

std::vector<unsigned char> with_issue_order(const unsigned char* cubin) {
    std::vector<unsigned char> copy(cubin, cubin + cubin_size(cubin));
    for_each_section(cubin, [&](const Elf64_Shdr& s, std::string_view name) {
        if (name.starts_with(".text.")) order(std::span(copy).subspan(s.sh_offset, s.sh_size));
    });
    return copy;
}

}  // namespace dsa::gemm::cuda
