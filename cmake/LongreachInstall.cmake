# `cmake --install build --prefix P`: the program, the static libraries, the public headers under include/longreach, and a
# CMake package. find_package(Longreach) defines Longreach::longreach (layers, models, checkpoints, formats) and Longreach::data.
# `--component library` leaves the program out; the target `package` builds what that needs.
include(CMakePackageConfigHelpers)

add_library(longreach_package INTERFACE)
target_link_libraries(longreach_package INTERFACE longreach_layers longreach_models longreach_checkpoints longreach_formats)
set_target_properties(longreach_package PROPERTIES EXPORT_NAME longreach)

set(_package longreach_package longreach_torch longreach_highway)
foreach(_name core data kernels parallel distributed layers models checkpoints formats)
  list(APPEND _package longreach_${_name})
endforeach()
foreach(_target IN LISTS _package)
  get_target_property(_type ${_target} TYPE)
  if(_type STREQUAL STATIC_LIBRARY)
    list(APPEND _archives ${_target})
  endif()
  if(NOT _target STREQUAL longreach_package)
    string(REPLACE "longreach_" "" _name ${_target})
    set_target_properties(${_target} PROPERTIES EXPORT_NAME ${_name})
  endif()
endforeach()
add_custom_target(package DEPENDS ${_archives})
install(TARGETS ${_package} EXPORT LongreachTargets ARCHIVE DESTINATION lib COMPONENT library)
install(EXPORT LongreachTargets NAMESPACE Longreach:: DESTINATION lib/cmake/Longreach COMPONENT library)
install(TARGETS longreach RUNTIME DESTINATION bin COMPONENT program)
set_target_properties(longreach PROPERTIES INSTALL_RPATH "$ORIGIN;${_torch}/lib")
if(TARGET longreach_cuda)
  install(TARGETS longreach_cuda LIBRARY DESTINATION bin COMPONENT program)
endif()

# Kernels and what only our own .cpp files share stay at home.
install(DIRECTORY core data distributed layers models checkpoints DESTINATION include/longreach COMPONENT library FILES_MATCHING PATTERN "*.h"
        PATTERN "cpu" EXCLUDE PATTERN "kernels.h" EXCLUDE PATTERN "*-inl.h" EXCLUDE PATTERN "attention/*/module.h" EXCLUDE)
configure_package_config_file(cmake/LongreachConfig.cmake.in ${CMAKE_BINARY_DIR}/LongreachConfig.cmake
                              INSTALL_DESTINATION lib/cmake/Longreach)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/LongreachConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/LongreachConfig.cmake ${CMAKE_BINARY_DIR}/LongreachConfigVersion.cmake
        DESTINATION lib/cmake/Longreach COMPONENT library)
