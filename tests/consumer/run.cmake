# Installs the package of the build folder BUILD into a temporary prefix, builds tests/consumer of SOURCE against it, and
# runs it, one of its programs as two processes: the installed package, and nothing of the tree, must do.
set(work ${BUILD}/consumer)
file(REMOVE_RECURSE ${work})
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
run(${CMAKE_COMMAND} --build ${BUILD} --target package)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/installed --component library)
file(RENAME ${work}/installed ${work}/prefix)  # a package that has moved must work
run(${CMAKE_COMMAND} -G Ninja -S ${SOURCE}/tests/consumer -B ${work}/build -DCMAKE_PREFIX_PATH=${work}/prefix
    -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --build ${work}/build)
run(${work}/build/consumer)
string(RANDOM LENGTH 4 ALPHABET 0123456789 digits)
math(EXPR port "20000 + 1${digits} - 10000")
set(ranks WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=${port})
run(${CMAKE_COMMAND} -E env RANK=0 ${ranks} ${work}/build/ranks COMMAND
    ${CMAKE_COMMAND} -E env RANK=1 ${ranks} ${work}/build/ranks)
