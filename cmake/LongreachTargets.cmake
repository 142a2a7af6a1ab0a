# The functions that turn folders into targets. Naming decides everything:
#   cmake/units.txt                      which folder belongs to which library longreach_NAME, and what links what
#   layers/ops/**/cpu/*.cpp              library longreach_kernels: no torch header; Google Highway
#   layers/ops/cpu/parallel.cpp          library longreach_parallel: the threads of kernels
#   layers/ops/**/cpu/*_avx512bf16.cpp   the same, compiled for AVX-512-BF16; entered behind a run-time check only
#   layers/ops/**/cpu/*_amx.cpp          the same for AMX
#   train/program/main.cpp               the program build/bin/longreach
#   tests/A/B/*_test.cpp                 executable A_B_test; *_slow_test.cpp, *_ptx_test.cpp, *_gpu_test.cpp and
#                                        *_interop_test.cpp go to A_B_slow_test, ... with that CTest label
set(LONGREACH_HEAVY_PCH <torch/nn/module.h>)

# What libraries use that is not ours. Those that name longreach_torch see its headers.
set(LONGREACH_EXTERNAL_core PkgConfig::XXHASH)
set(LONGREACH_EXTERNAL_data PkgConfig::HDF5 PkgConfig::ZSTD ZLIB::ZLIB Threads::Threads)
set(LONGREACH_EXTERNAL_distributed longreach_torch)
set(LONGREACH_EXTERNAL_layers longreach_kernels longreach_torch)
set(LONGREACH_EXTERNAL_checkpoints longreach_torch)
set(LONGREACH_EXTERNAL_formats ZLIB::ZLIB)
set(LONGREACH_EXTERNAL_program CLI11::CLI11)
set(LONGREACH_WITHOUT_TORCH core data)

# Reads cmake/units.txt, by which tools/check_sources.py judges includes: sets LONGREACH_LIBRARIES, in the table's order,
# LONGREACH_USES_<library>, and LONGREACH_SOURCES_<library>, the .cpp files of its units but kernels, plug-in and main.
function(longreach_read_units)
  set(table ${PROJECT_SOURCE_DIR}/cmake/units.txt)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${table})
  file(STRINGS ${table} lines REGEX "^[^#]")
  set(libraries "")
  foreach(line IN LISTS lines)
    string(REGEX MATCHALL "[^ ]+" words "${line}")
    list(POP_FRONT words unit library)
    list(APPEND units ${unit})
    list(APPEND libraries ${library})
    set(library_${unit} ${library})
    set(uses_${unit} ${words})
  endforeach()
  list(REMOVE_DUPLICATES libraries)
  foreach(unit IN LISTS units)
    foreach(used IN LISTS uses_${unit})
      string(REPLACE "/NAME.h" "" used ${used})  # layers/ops/NAME/NAME.h
      if(NOT library_${used} STREQUAL library_${unit})
        list(APPEND uses_library_${library_${unit}} longreach_${library_${used}})
      endif()
    endforeach()
  endforeach()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/core/*.cpp
       ${PROJECT_SOURCE_DIR}/data/*.cpp ${PROJECT_SOURCE_DIR}/checkpoints/*.cpp ${PROJECT_SOURCE_DIR}/distributed/*.cpp
       ${PROJECT_SOURCE_DIR}/layers/*.cpp ${PROJECT_SOURCE_DIR}/models/*.cpp ${PROJECT_SOURCE_DIR}/train/*.cpp)
  list(FILTER sources EXCLUDE REGEX "^layers/ops/(.*/)?cpu/|^layers/ops/cuda/plugin/|^train/program/main\\.cpp$")
  foreach(source IN LISTS sources)
    foreach(unit IN LISTS units)  # the last one that fits is the longest
      string(REPLACE "NAME" "[^/]+" pattern ${unit})
      if(source MATCHES "^${pattern}(/|\\.cpp$)")
        set(library ${library_${unit}})
      endif()
    endforeach()
    list(APPEND sources_${library} ${PROJECT_SOURCE_DIR}/${source})
  endforeach()
  foreach(library IN LISTS libraries)
    list(REMOVE_DUPLICATES uses_library_${library})
    set(LONGREACH_USES_${library} ${uses_library_${library}} PARENT_SCOPE)
    set(LONGREACH_SOURCES_${library} ${sources_${library}} PARENT_SCOPE)
  endforeach()
  set(LONGREACH_LIBRARIES ${libraries} PARENT_SCOPE)
endfunction()

# checkpoints/formats/modeling_sources.h: the Python of exported models inside the program.
function(longreach_embed_modeling)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/layers/attention/*/modeling.py)
  set(script ${PROJECT_SOURCE_DIR}/cmake/EmbedModeling.cmake)
  set(output ${PROJECT_BINARY_DIR}/modeling_sources.cpp)
  add_custom_command(OUTPUT ${output} COMMAND ${CMAKE_COMMAND} -D OUTPUT=${output} -P ${script}
                     DEPENDS ${script} ${files} ${PROJECT_SOURCE_DIR}/checkpoints/formats/modeling_longreach.py
                     COMMENT "Embedding the Python of exported models" VERBATIM)
  target_sources(longreach_formats PRIVATE ${output})
endfunction()

function(longreach_common target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                             $<INSTALL_INTERFACE:include> $<INSTALL_INTERFACE:include/longreach>)
  target_compile_features(${target} PUBLIC cxx_std_20)
endfunction()

function(longreach_library name)
  set(uses ${LONGREACH_USES_${name}} ${LONGREACH_EXTERNAL_${name}})
  if(NOT LONGREACH_SOURCES_${name})
    add_library(longreach_${name} INTERFACE)
    target_link_libraries(longreach_${name} INTERFACE ${uses})
    return()
  endif()
  add_library(longreach_${name} STATIC ${LONGREACH_SOURCES_${name}})
  longreach_common(longreach_${name})
  target_link_libraries(longreach_${name} PUBLIC ${uses})
  target_link_libraries(longreach_${name} PRIVATE $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)
  if(name STREQUAL data)  # private: its compile flags are nobody else's
    target_link_libraries(longreach_data PRIVATE PkgConfig::UTF8PROC)
  elseif(name STREQUAL distributed)  # c10d's header of Gloo says nothing without it
    set_source_files_properties(${PROJECT_SOURCE_DIR}/distributed/gloo.cpp ${PROJECT_SOURCE_DIR}/train/bench/gloo_peer.cpp
                                PROPERTIES COMPILE_DEFINITIONS USE_C10D_GLOO)
  elseif(name STREQUAL program)
    target_compile_definitions(longreach_program PUBLIC LONGREACH_VERSION="${PROJECT_VERSION}"
                               LONGREACH_TORCH_VERSION="${LONGREACH_TORCH_VERSION}")
    longreach_mechanism_files()
  endif()
  if(name STREQUAL layers)
    target_precompile_headers(longreach_layers PRIVATE ${LONGREACH_HEAVY_PCH})
  elseif(NOT name IN_LIST LONGREACH_WITHOUT_TORCH)
    longreach_reuse_pch(longreach_${name})
  endif()
endfunction()

# README's table of mechanisms has a cell for each file that is there.
function(longreach_mechanism_files)
  set(folder ${PROJECT_SOURCE_DIR}/layers/attention)
  file(GLOB files CONFIGURE_DEPENDS RELATIVE ${folder} ${folder}/*/*.cpp)
  list(JOIN files " " files)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/train/program/mechanism_table.cpp PROPERTIES
                              COMPILE_DEFINITIONS "LONGREACH_MECHANISM_FILES=\"${files}\"")
endfunction()

# Files of this target are compiled with the one precompiled header; needs the same flags as longreach_layers.
function(longreach_reuse_pch target)
  # A target would wait for all of longreach_layers, of which the tests of threads need nothing.
  if(TARGET longreach_layers AND NOT LONGREACH_SANITIZE STREQUAL "thread")
    target_precompile_headers(${target} REUSE_FROM longreach_layers)
  endif()
endfunction()

# Three vector targets are enough: the baseline, AVX2 and AVX-512 (bf16 dot products have files of their own). The baseline is
# the emulation of 128-bit vectors, which Highway avoids for g++ before 12.3 because of a bug in 16-bit products; the
# kernels' tests run on it. Kernels and the tests that compile their parts see the same targets.
function(longreach_highway_target)
  add_library(longreach_highway INTERFACE)
  target_compile_definitions(longreach_highway INTERFACE
    "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_AVX3_DL)" HWY_BROKEN_EMU128=0)
  target_link_libraries(longreach_highway INTERFACE PkgConfig::HWY)
endfunction()

function(longreach_kernel_library)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/layers/ops/cpu/*.cpp
       ${PROJECT_SOURCE_DIR}/layers/ops/*/cpu/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/layers/ops/cpu/parallel\\.cpp$")
  if(NOT sources)
    add_library(longreach_kernels INTERFACE)
    return()
  endif()
  add_library(longreach_kernels STATIC ${sources})
  longreach_common(longreach_kernels)
  target_compile_options(longreach_kernels PRIVATE -fno-math-errno -ffp-contract=fast)
  if(NOT LONGREACH_SANITIZE)  # a sanitizer's checks in unrolled code take g++ minutes a file
    target_compile_options(longreach_kernels PRIVATE -O3)
  endif()
  target_link_libraries(longreach_kernels PRIVATE longreach_highway)
  # Kernels call parallel_for: its object needs torch, their compilation must not see it.
  add_library(longreach_parallel STATIC ${PROJECT_SOURCE_DIR}/layers/ops/cpu/parallel.cpp)
  longreach_common(longreach_parallel)
  target_link_libraries(longreach_parallel PRIVATE longreach_torch)
  # Without it at::parallel_for quietly runs on one thread.
  target_compile_options(longreach_parallel PRIVATE -fopenmp)
  target_link_libraries(longreach_kernels INTERFACE $<LINK_ONLY:longreach_parallel>)
  foreach(source IN LISTS sources)
    if(source MATCHES "_avx512bf16\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mfma")
    elseif(source MATCHES "_amx\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mamx-tile;-mamx-bf16")
    endif()
  endforeach()
endfunction()

# liblongreach_cuda.so lies beside programs.
function(longreach_finds_plugin target)
  set_target_properties(${target} PROPERTIES BUILD_RPATH "$ORIGIN")
  if(TARGET longreach_cuda)
    add_dependencies(${target} longreach_cuda)
  endif()
endfunction()

function(longreach_program)
  add_executable(longreach ${PROJECT_SOURCE_DIR}/train/program/main.cpp)
  target_link_libraries(longreach PRIVATE longreach_program nlohmann_json::nlohmann_json)
  longreach_reuse_pch(longreach)
  longreach_finds_plugin(longreach)
endfunction()

# What tests/FOLDER/** link; a folder that is not listed links everything and may run the program. Kept small, so that tests
# of data need no model, and a sanitizer build little of the tree.
set(LONGREACH_TESTS_USE_core longreach_core)
set(LONGREACH_TESTS_USE_data longreach_data)
set(LONGREACH_TESTS_USE_checkpoints longreach_checkpoints)
set(LONGREACH_TESTS_USE_distributed longreach_distributed)
set(LONGREACH_TESTS_USE_layers longreach_layers longreach_checkpoints longreach_highway)
set(LONGREACH_TESTS_USE_tools longreach_core)
set(LONGREACH_TESTS_USE_ptx longreach_ptx)
set(LONGREACH_TESTS_USE_models longreach_models longreach_checkpoints)

function(longreach_link_test target source)
  string(REGEX MATCH "^[^/]+" folder ${source})
  set(libraries ${LONGREACH_TESTS_USE_${folder}})
  if(NOT libraries OR source MATCHES "^layers/attention/.*_slow_test\\.cpp$")  # that a mechanism learns is seen by training
    set(libraries longreach_test_program_support longreach_program)
    add_dependencies(${target} longreach)
  elseif(source MATCHES "^layers/attention/[a-z0-9_]+/")  # whole models of it, and its vector files
    list(PREPEND libraries longreach_test_attention_support)
    list(APPEND libraries longreach_verify longreach_models)
  elseif(source MATCHES "^checkpoints/formats/")
    set(libraries longreach_formats)
  endif()
  if(folder STREQUAL ptx)  # without LibTorch
    target_link_libraries(${target} PRIVATE ${libraries} GTest::gtest_main)
    if(target STREQUAL ptx_interop_test)
      longreach_cutlass(${target})
    endif()
    return()
  endif()
  target_link_libraries(${target} PRIVATE longreach_test_support ${libraries} nlohmann_json::nlohmann_json GTest::gtest_main)
  if(target STREQUAL layers_ops_cpu_test)  # against Eigen: tests/support/oracle.h
    target_link_libraries(${target} PRIVATE Eigen3::Eigen)
  endif()
  if(target MATCHES "_ptx_test$")
    target_link_libraries(${target} PRIVATE longreach_ptx)
    if(target STREQUAL layers_ops_cuda_ptx_test)
      longreach_nvdisasm(${target})
    endif()
  elseif(target MATCHES "_gpu_test$")
    longreach_finds_plugin(${target})
    if(TARGET longreach_cubins)  # interpreter_gpu_test.cpp compares with the interpreter
      target_link_libraries(${target} PRIVATE longreach_ptx)
    endif()
  endif()
  if(NOT folder MATCHES "^(core|data|tools)$")
    longreach_reuse_pch(${target})
  endif()
endfunction()

# CUTLASS' headers, where tools/fetch_cutlass.py has put them: an oracle of one test, which is skipped without them.
function(longreach_cutlass target)
  set(LONGREACH_CUTLASS_ROOT ${_cache}/longreach/cutlass-4.2.0.0 CACHE PATH "folder of CUTLASS' headers, for one test")
  set(headers ${LONGREACH_CUTLASS_ROOT}/cutlass_library/source/include)
  if(LONGREACH_NVCC AND EXISTS ${headers})
    get_filename_component(toolkit ${LONGREACH_NVCC} DIRECTORY)
    target_include_directories(${target} SYSTEM PRIVATE ${headers} ${toolkit}/../include ${toolkit}/../include/cccl)
  endif()
endfunction()

# nvcc's disassembler, or the one that tools/fetch_nvdisasm.py has fetched, for one test, which is skipped without it.
function(longreach_nvdisasm target)
  get_filename_component(toolkit ${LONGREACH_PTXAS} REALPATH)
  get_filename_component(toolkit ${toolkit} DIRECTORY)
  find_program(LONGREACH_NVDISASM nvdisasm HINTS ${toolkit} ${_cache}/longreach/nvdisasm-13.5.37/nvidia/cu13/bin)
  if(LONGREACH_NVDISASM)
    target_compile_definitions(${target} PRIVATE LONGREACH_NVDISASM="${LONGREACH_NVDISASM}")
  else()
    target_compile_definitions(${target} PRIVATE LONGREACH_NVDISASM="")
  endif()
endfunction()

# The PTX interpreter: tests/ptx/interpreter. Tests see the folder of the compiled kernels as LONGREACH_CUDA_FOLDER.
function(longreach_ptx_library)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/ptx/interpreter/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_library(longreach_ptx STATIC ${sources})
  longreach_common(longreach_ptx)
  target_compile_options(longreach_ptx PRIVATE -O3 -ffp-contract=off)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")  # every processor that LibTorch runs well on; lanes become vectors
    target_compile_options(longreach_ptx PRIVATE -mavx2 -mfma -mf16c)
  endif()
  target_compile_definitions(longreach_ptx PUBLIC LONGREACH_CUDA_FOLDER="${LONGREACH_CUDA_FOLDER}")
  target_link_libraries(longreach_ptx PUBLIC longreach_core Threads::Threads)
endfunction()

function(longreach_tests)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  file(GLOB_RECURSE support CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/*.cpp)
  list(FILTER support EXCLUDE REGEX "_test\\.cpp$|/support/(program|attention)/")
  add_library(longreach_test_support STATIC ${support})
  target_link_libraries(longreach_test_support PUBLIC longreach_core longreach_torch GTest::gtest GTest::gmock)
  file(GLOB attention CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/attention/*.cpp)  # what all mechanisms share
  add_library(longreach_test_attention_support STATIC ${attention})
  target_link_libraries(longreach_test_attention_support PUBLIC longreach_test_support longreach_layers)
  file(GLOB program CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/program/*.cpp)  # links all that the program does
  add_library(longreach_test_program_support STATIC ${program})
  target_link_libraries(longreach_test_program_support PUBLIC longreach_test_support longreach_program)
  target_link_libraries(longreach_test_program_support PRIVATE nlohmann_json::nlohmann_json)
  foreach(target longreach_test_support longreach_test_program_support)
    target_compile_definitions(${target} PRIVATE LONGREACH_PROGRAM="$<TARGET_FILE:longreach>"
                               LONGREACH_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  endforeach()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/tests/*_test.cpp)
  list(FILTER sources EXCLUDE REGEX "^consumer/")
  longreach_ptx_library()
  if(NOT TARGET longreach_cubins)  # no kernels to interpret
    list(FILTER sources EXCLUDE REGEX "(_ptx|/interpreter_gpu)_test\\.cpp$")
  endif()
  set(targets "")
  foreach(source IN LISTS sources)
    get_filename_component(folder ${source} DIRECTORY)
    string(REPLACE "/" "_" target "${folder}")
    set(label "unit")
    if(source MATCHES "_(slow|ptx|gpu|interop)_test\\.cpp$")
      set(label ${CMAKE_MATCH_1})
      string(APPEND target "_${label}")
    endif()
    string(APPEND target "_test")
    list(APPEND targets ${target})
    list(APPEND sources_${target} ${PROJECT_SOURCE_DIR}/tests/${source})
    set(label_${target} ${label})
    list(APPEND first_${target} ${source})
  endforeach()
  list(REMOVE_DUPLICATES targets)
  foreach(target IN LISTS targets)
    add_executable(${target} ${sources_${target}})
    list(GET first_${target} 0 first)  # all of one folder
    longreach_link_test(${target} ${first})
    if(label_${target} MATCHES "^(ptx|gpu)$" AND TARGET longreach_cubins)
      add_dependencies(${target} longreach_cubins)
    endif()
    target_compile_definitions(${target} PRIVATE
      LONGREACH_SOURCE_DIR="${PROJECT_SOURCE_DIR}" LONGREACH_PROGRAM="$<TARGET_FILE:longreach>")
    set(cost "")
    if(label_${target} STREQUAL slow)
      longreach_slow_cost(${target} seconds)
      set(cost PROCESSORS 2 COST ${seconds})
    endif()
    # Two tests run side by side with as many threads each as there are cores: threads that wait must not spin.
    gtest_discover_tests(${target} TEST_PREFIX "${target}." DISCOVERY_TIMEOUT 120
                         PROPERTIES LABELS ${label_${target}} TIMEOUT 900 ENVIRONMENT OMP_WAIT_POLICY=passive ${cost})
  endforeach()
endfunction()
