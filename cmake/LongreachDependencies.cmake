# Everything the project links, as imported or interface targets. LibTorch comes from the pinned PyPI wheel under
# LONGREACH_TORCH_ROOT (a pip --target folder); find_package(Torch) cannot be told to leave CUDA out, so it is not used.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
add_compile_options(-fPIC)  # for programs too: one precompiled header fits all
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wno-missing-field-initializers)
if(LONGREACH_SANITIZE)
  add_compile_options(-fsanitize=${LONGREACH_SANITIZE} -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=${LONGREACH_SANITIZE})
endif()

file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/libtorch.lock _torch_line REGEX "^cpu +torch ")
string(REGEX MATCH "[0-9]+\\.[0-9.]+" LONGREACH_TORCH_VERSION ${_torch_line})
if(DEFINED ENV{XDG_CACHE_HOME})
  set(_cache $ENV{XDG_CACHE_HOME})
else()
  set(_cache $ENV{HOME}/.cache)
endif()
# ./longreach names the folder; by hand, the small set-up is taken, or the full one where only that is there.
set(_torch_default ${_cache}/longreach/torch-${LONGREACH_TORCH_VERSION}-cpu)
if(LONGREACH_CUDA STREQUAL ON OR NOT EXISTS ${_torch_default})
  set(_torch_default ${_cache}/longreach/torch-${LONGREACH_TORCH_VERSION}-cuda)
endif()
set(LONGREACH_TORCH_ROOT ${_torch_default} CACHE PATH "folder that holds torch/ and nvidia/ of the pinned wheels")
set(_torch ${LONGREACH_TORCH_ROOT}/torch)
if(NOT EXISTS ${_torch}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch ${LONGREACH_TORCH_VERSION} is not in ${LONGREACH_TORCH_ROOT}; "
                      "run ./longreach, which installs it, or set LONGREACH_TORCH_ROOT")
endif()
add_library(longreach_torch INTERFACE)
target_include_directories(longreach_torch SYSTEM INTERFACE $<BUILD_INTERFACE:${_torch}/include>
                           $<BUILD_INTERFACE:${_torch}/include/torch/csrc/api/include>)
target_compile_definitions(longreach_torch INTERFACE AT_PER_OPERATOR_HEADERS)
# Nothing of this folder goes into the installed package, which looks for its own (cmake/LongreachConfig.cmake.in).
target_link_libraries(longreach_torch INTERFACE $<BUILD_INTERFACE:${_torch}/lib/libtorch_cpu.so>
                      $<BUILD_INTERFACE:${_torch}/lib/libc10.so>
                      # The one OpenMP run time of LibTorch: at::parallel_for is a template whose parallel region lies in our code.
                      $<BUILD_INTERFACE:${_torch}/lib/libgomp.so.1>)
target_link_options(longreach_torch INTERFACE $<BUILD_INTERFACE:-Wl,-rpath-link,${LONGREACH_TORCH_ROOT}/nvidia/cu13/lib>
                    $<BUILD_INTERFACE:-Wl,-rpath,${_torch}/lib>)

find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(HDF5 QUIET IMPORTED_TARGET hdf5)
if(NOT HDF5_FOUND)  # conda-forge's has no hdf5.pc
  find_package(HDF5 REQUIRED COMPONENTS C)
  add_library(PkgConfig::HDF5 INTERFACE IMPORTED)
  target_link_libraries(PkgConfig::HDF5 INTERFACE hdf5::hdf5)
endif()
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
if(LONGREACH_TESTS)
  find_package(Eigen3 3.3 REQUIRED NO_MODULE)  # what kernels are compared with, in float64
endif()
