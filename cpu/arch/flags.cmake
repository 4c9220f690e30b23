# Instruction-set flags, unit by unit: never -march=native, so that one binary runs everywhere. GCC 12 warns about the
# deliberately undefined registers of its own AVX-512 header (GCC bug 105593). Tuned for all processors alike it keeps one of the
# 12 row pointers of avx512's and avx512bf16's tiles in a vector register, and moving it back takes one of the 25 slots of the FMA
# ports that a step of 24 products then needs (read in the disassembly); tuned for AVX-512's own processors it does not.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  if(MSVC)
    set_source_files_properties(cpu/arch/avx2.cpp PROPERTIES COMPILE_OPTIONS "/arch:AVX2")
    set_source_files_properties(cpu/arch/avx512.cpp PROPERTIES COMPILE_OPTIONS "/arch:AVX512")
    set_source_files_properties(cpu/arch/avx512bf16.cpp PROPERTIES COMPILE_OPTIONS "/arch:AVX512;-mavx512bf16")
    set_source_files_properties(cpu/arch/amxbf16.cpp PROPERTIES COMPILE_OPTIONS "/arch:AVX512;-mamx-tile;-mamx-bf16")
  else()
    set_source_files_properties(cpu/arch/avx2.cpp PROPERTIES
      COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    set(avx512 "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx2;-mfma;-mf16c;-mtune=skylake-avx512;-Wno-maybe-uninitialized")
    set_source_files_properties(cpu/arch/avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
    set_source_files_properties(cpu/arch/amxbf16.cpp PROPERTIES COMPILE_OPTIONS "-mamx-tile;-mamx-bf16")
    set_source_files_properties(cpu/arch/avx512bf16.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mavx512bf16")
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set_source_files_properties(cpu/arch/neonbf16.cpp PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+bf16")
endif()
