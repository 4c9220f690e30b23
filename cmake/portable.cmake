# The addon as it is shipped: nothing needed but the C library, and that one back to glibc 2.28; no symbol that another addon of
# the process could mistake for its own. tools/prebuild.mjs checks the result.
function(nd_make_portable target)
  if(MSVC)
    set_target_properties(${target} PROPERTIES MSVC_RUNTIME_LIBRARY "MultiThreaded")
  elseif(APPLE)
    target_link_options(${target} PRIVATE -Wl,-dead_strip -Wl,-exported_symbol,_napi_register_module_v1
      -Wl,-exported_symbol,_node_api_module_get_api_version_v1)
  elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT ND_SANITIZE)
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/glibc-floor.cpp)
    # The jumps are made of assembler beside the functions, which link-time optimisation would lose.
    set_source_files_properties(${CMAKE_SOURCE_DIR}/cmake/glibc-floor.cpp PROPERTIES
      COMPILE_OPTIONS "-fno-lto;-ffunction-sections;-fdata-sections")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/exports.map)
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc -Wl,--gc-sections -Wl,--exclude-libs,ALL
      -Wl,-Bsymbolic -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/exports.map)
    # Before 2.34 these are libraries of their own; later ones have them still, and empty.
    target_link_libraries(${target} PRIVATE
      -Wl,--push-state,--no-as-needed -l:libpthread.so.0 -l:libdl.so.2 -l:librt.so.1 -Wl,--pop-state)
  endif()
endfunction()
