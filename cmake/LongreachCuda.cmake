# CUDA kernels: every layers/**/*.cu becomes PTX once, and that very PTX becomes the shipped cubins; the tests interpret
# the PTX. Kernels are pure device code (`extern "C" __global__`, launched by name), so nvcc compiles no host side.
#   X.cu          PTX for sm_80; cubins for sm_80 and sm_90
#   X_sm90a.cu    PTX and cubin for sm_90a (wgmma, TMA)
# Everything lies in build/cuda: NAME.ptx, NAME.ARCH.cubin and ptxas' report NAME.ARCH.txt. The interpreter's own kernels,
# tests/ptx/kernels/X.cu, become tests_X.ptx alone.
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

function(longreach_ptx source ptx target)
  add_custom_command(OUTPUT ${ptx} DEPENDS ${PROJECT_SOURCE_DIR}/${source} DEPFILE ${ptx}.d
                     COMMAND ${CCACHE_PROGRAM} ${LONGREACH_NVCC} ${LONGREACH_NVCC_FLAGS} -arch=${target} -MD -MF ${ptx}.d
                       -o ${ptx} ${PROJECT_SOURCE_DIR}/${source}
                     VERBATIM)
endfunction()

function(longreach_cuda_kernels)
  find_program(LONGREACH_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(NOT LONGREACH_NVCC)
    return()
  endif()
  get_filename_component(folder ${LONGREACH_NVCC} DIRECTORY)
  find_program(LONGREACH_PTXAS ptxas HINTS ${folder} REQUIRED)
  file(MAKE_DIRECTORY ${LONGREACH_CUDA_FOLDER})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/layers/*.cu)
  foreach(source IN LISTS sources)
    string(REGEX REPLACE "\\.cu$" "" name ${source})
    string(REGEX REPLACE "^layers/(ops/)?" "" name ${name})
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
    endforeach()
  endforeach()
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
endfunction()
