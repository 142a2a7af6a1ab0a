# Tests with the label `slow` that are no GoogleTest program, and what slow tests cost: tests/slow_costs.txt, as CTest's
# property COST, negative because CTest starts the highest first. A slow test takes both cores of the smallest machine
# that the project is tested on, so two never run side by side there.
function(longreach_slow_cost name result)
  set(seconds 120)
  file(STRINGS ${PROJECT_SOURCE_DIR}/tests/slow_costs.txt lines REGEX "^[^#]")
  foreach(line IN LISTS lines)
    if(line MATCHES "^([^ ]+) +([0-9]+)$" AND CMAKE_MATCH_1 STREQUAL name)
      set(seconds ${CMAKE_MATCH_2})
    endif()
  endforeach()
  set(${result} -${seconds} PARENT_SCOPE)
endfunction()

function(longreach_slow_test name)
  add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  longreach_slow_cost(${name} cost)
  set_tests_properties(${name} PROPERTIES LABELS slow PROCESSORS 2 COST ${cost} TIMEOUT 3000
                       ENVIRONMENT "LONGREACH_TORCH_ROOT=${LONGREACH_TORCH_ROOT};OMP_WAIT_POLICY=passive")
endfunction()

function(longreach_slow_tests)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/slow_costs.txt)
  if(LONGREACH_SANITIZE)
    return()
  endif()
  longreach_slow_test(sanitize.asan ${PROJECT_SOURCE_DIR}/tools/sanitize.sh asan)
  longreach_slow_test(sanitize.tsan ${PROJECT_SOURCE_DIR}/tools/sanitize.sh tsan)
  longreach_slow_test(deletion ${PROJECT_SOURCE_DIR}/tools/check_deletion.sh)
  longreach_slow_test(consumer ${CMAKE_COMMAND} -DBUILD=${CMAKE_BINARY_DIR} -DSOURCE=${PROJECT_SOURCE_DIR}
                      -P ${PROJECT_SOURCE_DIR}/tests/consumer/run.cmake)
endfunction()
