# cuda/ as a library of its own, from one set of sources: nd_cuda_sim with the host compiler and the simulator (tests).
set(ND_CUDA_SOURCES)
file(GLOB ND_CUDA_SOURCES CONFIGURE_DEPENDS cuda/*.cu cuda/kernels/*.cu cuda/kernels/*.cpp)
file(GLOB ND_CUDA_SIM_SOURCES CONFIGURE_DEPENDS cuda/sim/*.cpp)

# The simulator switches stacks by hand, for Linux on x86-64 and AArch64.
if(ND_TESTS AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|aarch64|arm64")
  set(ND_CUDA_SIM ON)
  add_library(nd_cuda_sim STATIC ${ND_CUDA_SOURCES} ${ND_CUDA_SIM_SOURCES})
  foreach(source ${ND_CUDA_SOURCES})
    if(source MATCHES "\\.cu$")
      set_source_files_properties(${source} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
    endif()
  endforeach()
  target_compile_definitions(nd_cuda_sim PUBLIC ND_CUDA_SIM)
  target_compile_options(nd_cuda_sim PUBLIC -Wno-unknown-pragmas)
  target_link_libraries(nd_cuda_sim PUBLIC nd_engine)
endif()
