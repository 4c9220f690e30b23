// Which instruction sets there are, which of them this machine runs, and their kernel tables.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernel-table.h"

namespace nd {

// One per unit in cpu/arch. Calling one runs code of that instruction set: only after asking the CPU.
const KernelTable* avx512Table();
const KernelTable* avx2Table();
const KernelTable* neonTable();
const KernelTable* scalarTable();
const Bf16Kernels* avx512Bf16Kernels();
const Bf16Kernels* amxBf16Kernels();
const Bf16Kernels* neonBf16Kernels();
const Bf16Kernels* scalarBf16Kernels();

/// The kernels of `isa`; empty: NODE_DIFFUSION_CPU, else the best that the machine has. Throws
/// Error(InvalidArgument) for a name that is unknown or that this machine or build lacks.
const KernelTable& chooseKernels(const std::string& isa);

/// The products of bfloat16 beside those kernels that this machine has, the best first; only those of a name,
/// where one is given. What needs the system's permission asks for it here.
std::vector<const Bf16Kernels*> bf16KernelsOf(const KernelTable& kernels, const std::string& name = {});

/// The best of them, or the one that NODE_DIFFUSION_BF16 names. Throws Error(Unsupported) where the CPU has
/// none, Error(InvalidArgument) for another name.
const Bf16Kernels& chooseBf16Kernels(const KernelTable& kernels);

/// What people call the instruction set: "AVX2+FMA". The name itself where it is not in the list.
std::string isaDescription(const char* name);

}  // namespace nd
