# Fuzzers of everything that reads files of others and needs no LibTorch: tests/fuzz/NAME_fuzz.cpp is the program NAME_fuzz,
# which begins with tests/fuzz/corpus/NAME. Clang brings libFuzzer.
set(LONGREACH_FUZZ_SECONDS 60 CACHE STRING "How long a test runs each fuzzer")

function(longreach_fuzzers)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "fuzzers need Clang, found ${CMAKE_CXX_COMPILER_ID}; cmake --preset fuzz")
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/core/*.cpp ${PROJECT_SOURCE_DIR}/data/*.cpp)
  foreach(source safetensors_header formats/pickle formats/zip_directory formats/gguf/gguf_header formats/gguf/gguf_keys
          formats/gguf/ggml_type)
    list(APPEND sources ${PROJECT_SOURCE_DIR}/checkpoints/${source}.cpp)
  endforeach()
  set(sanitizers address,undefined)
  add_library(longreach_fuzzed STATIC ${sources})
  longreach_common(longreach_fuzzed)
  target_compile_options(longreach_fuzzed PUBLIC -O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all
                         -fsanitize=fuzzer-no-link,${sanitizers})
  target_include_directories(longreach_fuzzed SYSTEM PRIVATE ${_torch}/include)  # c10's half-precision numbers, all in headers
  target_link_libraries(longreach_fuzzed PUBLIC ${LONGREACH_EXTERNAL_core} ${LONGREACH_EXTERNAL_data} PkgConfig::UTF8PROC
                        nlohmann_json::nlohmann_json)
  file(GLOB fuzzers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
  foreach(source IN LISTS fuzzers)
    get_filename_component(program ${source} NAME_WE)
    string(REPLACE "_fuzz" "" name ${program})
    add_executable(${program} ${source})
    target_link_libraries(${program} PRIVATE longreach_fuzzed)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer,${sanitizers})
    set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set(run ${PROJECT_SOURCE_DIR}/tools/run_fuzzer.sh $<TARGET_FILE:${program}> ${corpus} ${PROJECT_BINARY_DIR}/found/${name})
    add_test(NAME fuzz.${name}.corpus COMMAND ${run} -runs=0)
    add_test(NAME fuzz.${name} COMMAND ${run} -max_total_time=${LONGREACH_FUZZ_SECONDS})
    math(EXPR timeout "${LONGREACH_FUZZ_SECONDS} + 300")
    set_tests_properties(fuzz.${name}.corpus fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
  endforeach()
endfunction()
