# cuda/ as libraries, from one set of sources:
#   nd_cuda      by nvcc, for the GPU; where there is no nvcc, a library that says so
#   nd_cuda_sim  by the host compiler, over the simulator (cuda/sim): for tests on any machine, never shipped
# They define the same names and never meet in one binary.
set(ND_CUDA "AUTO" CACHE STRING "CUDA backend: AUTO (where nvcc is found), ON (or an error), OFF")
set_property(CACHE ND_CUDA PROPERTY STRINGS AUTO ON OFF)
file(GLOB ND_CUDA_SOURCES CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/cuda/*.cu ${CMAKE_SOURCE_DIR}/cuda/kernels/*.cu ${CMAKE_SOURCE_DIR}/cuda/kernels/*.cpp)

set(ND_HAVE_CUDA OFF)
if(NOT ND_CUDA STREQUAL "OFF" AND NOT CMAKE_CROSSCOMPILING)  # nvcc would compile for this machine
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # cuda/CMakeLists.txt names them
    enable_language(CUDA)
    # 12.8 knows every instruction that is used here, and its host headers understand C++20.
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL "12.8")
      set(ND_HAVE_CUDA ON)
    else()
      message(STATUS "CUDA: nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.8")
    endif()
  endif()
  if(ND_CUDA STREQUAL "ON" AND NOT ND_HAVE_CUDA)
    message(FATAL_ERROR "ND_CUDA is ON but there is no nvcc 12.8 or newer; set CUDACXX to it")
  endif()
endif()
if(ND_HAVE_CUDA)
  add_subdirectory(cuda)  # a folder of its own: there the sources are CUDA, here C++
else()
  add_library(nd_cuda STATIC cuda/unavailable.cpp)
  target_link_libraries(nd_cuda PUBLIC nd_engine)
endif()
message(STATUS "CUDA backend: ${ND_HAVE_CUDA}")

# The simulator switches stacks by hand, for Linux on x86-64 and AArch64. Not where the tests will be emulated: a
# simulator in an emulator takes too long. Not under sanitizers, which take its stacks for broken ones.
set(ND_CUDA_SIM OFF)
if(ND_TESTS AND NOT ND_SANITIZE AND NOT CMAKE_CROSSCOMPILING AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|aarch64|arm64")
  set(ND_CUDA_SIM ON)
  file(GLOB ND_CUDA_SIM_SOURCES CONFIGURE_DEPENDS cuda/sim/*.cpp)
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
