# CUDA kernels: every *.cu under layers/ops/NAME/cuda and layers/ops/cuda becomes PTX once, and that very PTX becomes the
# shipped cubins; the tests interpret the PTX. Kernels are pure device code (`extern "C" __global__`, launched by name), so
# nvcc compiles no host side.
#   X.cu          PTX for sm_80; cubins for sm_80 and sm_90
#   X_sm90a.cu    PTX and cubin for sm_90a (wgmma, TMA)
# Everything lies in build/cuda: NAME.ptx, NAME.ARCH.cubin, ptxas' report NAME.ARCH.txt and NAME.fatbin, which holds the cubins
# and the PTX of sm_80 for later devices. The interpreter's own kernels, tests/ptx/kernels/X.cu, become tests_X.ptx alone.
# static_table.txt sums up the reports and the PTX of all (layers/ops/cuda/static_report.h); the plug-in carries it.
# The fat binaries and the launcher, layers/ops/cuda/plugin, make liblongreach_cuda.so beside the program, which loads it
# when it is asked for CUDA.
set(LONGREACH_CUDA_FOLDER ${PROJECT_BINARY_DIR}/cuda)

# What nvcc and ptxas are told: line numbers for the interpreter's reports, no fast-math.
set(LONGREACH_NVCC_FLAGS -std=c++20 -O3 -lineinfo -I${PROJECT_SOURCE_DIR} --ptx)

function(longreach_cubin ptx arch result)
  string(REGEX REPLACE "\\.ptx$" ".${arch}" stem ${ptx})
  add_custom_command(OUTPUT ${stem}.cubin BYPRODUCTS ${stem}.txt DEPENDS ${ptx}
                     COMMAND sh -c "${LONGREACH_PTXAS} -arch=${arch} -O3 --generate-line-info -v ${ptx} -o ${stem}.cubin \
                       >${stem}.txt 2>&1 || { cat ${stem}.txt; exit 1; }" VERBATIM)
  set(${result} ${stem}.cubin PARENT_SCOPE)
endfunction()

# The fat binary of `name` from its cubins.
function(longreach_fatbin name archs result)
  set(stem ${LONGREACH_CUDA_FOLDER}/${name})
  foreach(arch IN LISTS archs)
    string(REPLACE "sm_" "" number ${arch})
    list(APPEND images --image3=kind=elf,sm=${number},file=${stem}.${arch}.cubin)
    list(APPEND files ${stem}.${arch}.cubin)
  endforeach()
  if("sm_80" IN_LIST archs)
    list(APPEND images --image3=kind=ptx,sm=80,file=${stem}.ptx)
  endif()
  add_custom_command(OUTPUT ${stem}.fatbin DEPENDS ${files} COMMAND ${LONGREACH_FATBINARY} -64 --create ${stem}.fatbin ${images}
                     VERBATIM)
  set(${result} ${stem}.fatbin PARENT_SCOPE)
endfunction()

function(longreach_ptx source ptx target)
  add_custom_command(OUTPUT ${ptx} DEPENDS ${PROJECT_SOURCE_DIR}/${source} DEPFILE ${ptx}.d
                     COMMAND ${CCACHE_PROGRAM} ${LONGREACH_NVCC} ${LONGREACH_NVCC_FLAGS} -arch=${target} -MD -MF ${ptx}.d
                       -o ${ptx} ${PROJECT_SOURCE_DIR}/${source}
                     VERBATIM)
endfunction()

# The static table of the kernels NAME.ARCH, by the tool that is built from the very code that reads it.
function(longreach_static_table kernels cubins)
  add_executable(longreach_static_report ${PROJECT_SOURCE_DIR}/layers/ops/cuda/plugin/report/main.cpp
                 ${PROJECT_SOURCE_DIR}/layers/ops/cuda/static_report.cpp)
  longreach_common(longreach_static_report)
  target_link_libraries(longreach_static_report PRIVATE longreach_core)
  add_custom_command(OUTPUT ${LONGREACH_CUDA_FOLDER}/static_table.txt DEPENDS longreach_static_report ${cubins}
                     COMMAND longreach_static_report ${LONGREACH_CUDA_FOLDER}/static_table.txt ${LONGREACH_CUDA_FOLDER} ${kernels}
                     VERBATIM)
endfunction()

function(longreach_cuda_kernels)
  if(LONGREACH_CUDA STREQUAL OFF OR LONGREACH_SANITIZE)
    return()
  endif()
  find_program(LONGREACH_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(NOT LONGREACH_NVCC)
    if(LONGREACH_CUDA STREQUAL ON)
      message(FATAL_ERROR "LONGREACH_CUDA is ON, and nvcc is not found")
    endif()
    return()
  endif()
  get_filename_component(folder ${LONGREACH_NVCC} DIRECTORY)
  find_program(LONGREACH_PTXAS ptxas HINTS ${folder} REQUIRED)
  find_program(LONGREACH_FATBINARY fatbinary HINTS ${folder} REQUIRED)
  file(MAKE_DIRECTORY ${LONGREACH_CUDA_FOLDER})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/layers/ops/cuda/*.cu
       ${PROJECT_SOURCE_DIR}/layers/ops/*/cuda/*.cu)
  foreach(source IN LISTS sources)
    string(REGEX REPLACE "\\.cu$" "" name ${source})
    string(REGEX REPLACE "^layers/ops/" "" name ${name})
    string(REGEX REPLACE "(^|/)cuda/" "\\1" name ${name})
    string(REPLACE "/" "_" name ${name})
    set(ptx ${LONGREACH_CUDA_FOLDER}/${name}.ptx)
    set(archs sm_80 sm_90)
    set(target sm_80)
    if(source MATCHES "_sm90a\\.cu$")
      set(archs sm_90a)
      set(target sm_90a)
    endif()
    longreach_ptx(${source} ${ptx} ${target})
    foreach(arch IN LISTS archs)
      longreach_cubin(${ptx} ${arch} cubin)
      list(APPEND outputs ${cubin})
      list(APPEND kernels ${name}.${arch})
    endforeach()
    longreach_fatbin(${name} "${archs}" fatbin)
    list(APPEND fatbins ${fatbin})
  endforeach()
  longreach_static_table("${kernels}" "${outputs}")
  list(APPEND outputs ${LONGREACH_CUDA_FOLDER}/static_table.txt)
  if(LONGREACH_TESTS)
    file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/tests/ptx/kernels/*.cu)
    foreach(source IN LISTS sources)
      get_filename_component(name ${source} NAME_WE)
      set(ptx ${LONGREACH_CUDA_FOLDER}/tests_${name}.ptx)
      set(target sm_80)
      if(source MATCHES "_sm90a\\.cu$")
        set(target sm_90a)
      endif()
      longreach_ptx(${source} ${ptx} ${target})
      list(APPEND outputs ${ptx})
    endforeach()
  endif()
  add_custom_target(longreach_cubins ALL DEPENDS ${outputs})
  set(LONGREACH_FATBINS ${fatbins} PARENT_SCOPE)
endfunction()

# Adds a file, with a zero after it, to the C++ text in `result`.
function(longreach_binary symbol file result)
  string(CONCAT text "asm(\".section .rodata\\n.balign 64\\n.hidden ${symbol}\\n.global ${symbol}\\n${symbol}:\\n"
         ".incbin \\\"${file}\\\"\\n.byte 0\\n.previous\");\nextern \"C\" const char ${symbol}[];\n")
  set(${result} "${${result}}${text}" PARENT_SCOPE)
endfunction()

# images.cpp: the fat binaries and the static table as constants. Assembled in, since a compiler takes minutes over arrays of
# megabytes.
function(longreach_cuda_images result)
  set(number 0)
  set(table ${LONGREACH_CUDA_FOLDER}/static_table.txt)
  longreach_binary(longreach_static_table_text ${table} data)
  foreach(fatbin IN LISTS LONGREACH_FATBINS)
    get_filename_component(name ${fatbin} NAME_WE)
    set(symbol longreach_image_${number})
    longreach_binary(${symbol} ${fatbin} data)
    string(APPEND list "    {\"${name}\", ${symbol}},\n")
    math(EXPR number "${number} + 1")
  endforeach()
  file(CONFIGURE OUTPUT ${LONGREACH_CUDA_FOLDER}/images.cpp @ONLY CONTENT
"// Generated by cmake/LongreachCuda.cmake.
#include \"layers/ops/cuda/plugin/images.h\"
@data@
namespace longreach::cuda {
std::span<const Image> images() {
  static const Image all[] = {
@list@  };
  return all;
}
const char* static_table_text() { return longreach_static_table_text; }
}  // namespace longreach::cuda
")
  set_source_files_properties(${LONGREACH_CUDA_FOLDER}/images.cpp PROPERTIES OBJECT_DEPENDS "${LONGREACH_FATBINS};${table}")
  set(${result} ${LONGREACH_CUDA_FOLDER}/images.cpp PARENT_SCOPE)
endfunction()

# Links libtorch_cuda.so (with it cuDNN and NCCL's c10d::ProcessGroupNCCL) and nothing of the gigabytes that it needs in turn:
# a shared library may leave those to be found when it is loaded. The program loads libtorch_cuda.so before it asks ATen about
# CUDA. Beside the small LibTorch set-up, which lacks them, the plug-in has the kernels and two small libraries.
function(longreach_cuda_plugin)
  if(NOT EXISTS ${LONGREACH_TORCH_ROOT}/torch/lib/libc10_cuda.so)
    if(LONGREACH_CUDA STREQUAL ON)
      message(FATAL_ERROR "LONGREACH_CUDA is ON, and ${LONGREACH_TORCH_ROOT} holds no full LibTorch set-up")
    endif()
    return()
  endif()
  if(NOT LONGREACH_FATBINS)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/layers/ops/cuda/plugin/*.cpp)
  longreach_cuda_images(images)
  set(wheels ${LONGREACH_TORCH_ROOT}/nvidia)
  set(set_up small)
  if(EXISTS ${wheels}/nccl/include/nccl.h)
    set(set_up full)
  elseif(LONGREACH_CUDA STREQUAL ON)
    message(FATAL_ERROR "LONGREACH_CUDA is ON, and ${wheels} holds no NCCL")
  endif()
  list(APPEND sources ${PROJECT_SOURCE_DIR}/layers/ops/cuda/plugin/libraries/${set_up}.cpp)
  if(set_up STREQUAL full)
    list(APPEND sources ${PROJECT_SOURCE_DIR}/layers/ops/cuda/plugin/libraries/nccl.cpp)
  endif()
  add_library(longreach_cuda SHARED ${sources} ${images})
  longreach_common(longreach_cuda)
  get_filename_component(folder ${LONGREACH_NVCC} REALPATH)
  get_filename_component(folder ${folder} DIRECTORY)
  target_include_directories(longreach_cuda SYSTEM PRIVATE ${folder}/../include)
  if(set_up STREQUAL full)
    target_include_directories(longreach_cuda SYSTEM PRIVATE ${wheels}/nccl/include ${wheels}/cudnn/include)
    target_compile_definitions(longreach_cuda PRIVATE USE_C10D_NCCL)
    target_link_libraries(longreach_cuda PRIVATE ${LONGREACH_TORCH_ROOT}/torch/lib/libtorch_cuda.so)
  endif()
  set(cuda_libraries ${wheels}/cu13/lib)
  target_link_libraries(longreach_cuda PRIVATE longreach_distributed longreach_core longreach_torch
                        ${LONGREACH_TORCH_ROOT}/torch/lib/libc10_cuda.so ${cuda_libraries}/libcudart.so.13)
  target_link_options(longreach_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,-rpath,${cuda_libraries})
  set_target_properties(longreach_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
endfunction()
