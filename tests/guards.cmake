# Guards of the build: who may include whom (include_graph.sh), and that no shared function is compiled
# with the flags of one instruction set (isa_symbols.sh). Both check what CMake really does: include
# paths and object names are written out from the targets' properties. Each comes with a self-test
# that shows that it can fail. To be included after all modules.

set(guards_dir ${CMAKE_BINARY_DIR}/guards)
set(guards_modules base gemm indexer attention moe engine)

foreach(name ${guards_modules} program)
  file(GENERATE OUTPUT ${guards_dir}/includes/${name}.txt
       CONTENT "$<JOIN:$<TARGET_PROPERTY:dsa_${name},INCLUDE_DIRECTORIES>,\n>\n")
endforeach()

# One line an ISA file: its source, a tab, its object (empty if the target has no such object).
set(isa_objects "")
foreach(name ${guards_modules})
  get_property(sources GLOBAL PROPERTY DSA_ISA_OBJECTS_${name})
  foreach(source ${sources})
    string(REGEX REPLACE "([.+])" "\\\\\\1" pattern ${source})
    string(APPEND isa_objects "${name}/${source}\t"
           "$<FILTER:$<TARGET_OBJECTS:dsa_${name}>,INCLUDE,/${pattern}\\.o(bj)?$>\n")
  endforeach()
endforeach()
file(GENERATE OUTPUT ${guards_dir}/isa_objects.txt CONTENT "${isa_objects}")

set(include_graph ${CMAKE_CURRENT_LIST_DIR}/include_graph.sh)
set(isa_symbols ${CMAKE_CURRENT_LIST_DIR}/isa_symbols.sh)
add_test(NAME include_graph
  COMMAND ${include_graph} ${CMAKE_CXX_COMPILER} ${CMAKE_SOURCE_DIR} ${guards_dir}/includes)
add_test(NAME include_graph_self_test
  COMMAND ${include_graph} --self-test
          ${CMAKE_CXX_COMPILER} ${CMAKE_SOURCE_DIR} ${guards_dir}/includes)
add_test(NAME isa_symbols
  COMMAND ${isa_symbols} ${CMAKE_NM} ${guards_dir}/isa_objects.txt ${CMAKE_SYSTEM_PROCESSOR}
          "${CMAKE_BUILD_TYPE}" "${DSA_SANITIZE}")
add_test(NAME isa_symbols_self_test
  COMMAND ${isa_symbols} --self-test ${CMAKE_NM} ${CMAKE_CXX_COMPILER})
set_tests_properties(include_graph include_graph_self_test isa_symbols isa_symbols_self_test
  PROPERTIES LABELS lint TIMEOUT 300 SKIP_RETURN_CODE 77)
