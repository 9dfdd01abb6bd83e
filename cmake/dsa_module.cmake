# dsa_module(NAME SOURCES ... [DEPENDS module ...] [LIBS target ...])
#
# One OBJECT library `dsa_NAME` a module. A module sees its own folder and the public headers
# (NAME/*.h, not NAME/cpu/ or NAME/cuda/) of the modules in DEPENDS, and nothing else: each module's
# public headers are linked into an include root of their own in the build tree, so that a
# forbidden #include does not compile. tests/include_graph.sh proves it.
#
# dsa_isa_sources(NAME ISA FILE ...) gives kernel files the flags of one instruction set.

set(DSA_WARNINGS -Wall -Wextra -Wshadow -Wconversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND DSA_WARNINGS -Wno-restrict)  # false alarms of g++ 12 where strings are concatenated
endif()
# g++ contracts a*b+c across intrinsics otherwise, and two kernels with the same order of operations
# would differ in bits. An FMA is written where it is meant.
add_compile_options(-ffp-contract=off)

if(DSA_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(DSA_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(DSA_SANITIZE)
  message(FATAL_ERROR "DSA_SANITIZE is '${DSA_SANITIZE}'; expected 'address', 'thread' or empty")
endif()

function(dsa_warnings target)
  target_compile_options(${target} PRIVATE ${DSA_WARNINGS})
  if(DSA_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

# Links every header of `from` (not of its subfolders) into `to`.
function(dsa_link_headers from to)
  file(REMOVE_RECURSE ${to})
  file(MAKE_DIRECTORY ${to})
  file(GLOB headers CONFIGURE_DEPENDS ${from}/*.h)
  foreach(header ${headers})
    get_filename_component(name ${header} NAME)
    file(CREATE_LINK ${header} ${to}/${name} SYMBOLIC)
  endforeach()
endfunction()

function(dsa_module name)
  cmake_parse_arguments(M "" "" "SOURCES;DEPENDS;LIBS" ${ARGN})
  set(roots ${CMAKE_BINARY_DIR}/include_roots)
  dsa_link_headers(${CMAKE_CURRENT_SOURCE_DIR} ${roots}/${name}/${name})
  file(MAKE_DIRECTORY ${roots}/${name}_private)
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${roots}/${name}_private/${name} SYMBOLIC)

  add_library(dsa_${name} OBJECT ${M_SOURCES})
  target_include_directories(dsa_${name}
    PRIVATE ${roots}/${name}_private
    INTERFACE $<BUILD_INTERFACE:${roots}/${name}>)
  foreach(dep ${M_DEPENDS})
    target_link_libraries(dsa_${name} PUBLIC dsa_${dep})
  endforeach()
  target_link_libraries(dsa_${name} PUBLIC ${M_LIBS})
  dsa_warnings(dsa_${name})
endfunction()

function(dsa_isa_sources name isa)
  # Kernels throw nothing, and nothing that they call does: no landing pads, which would need the
  # C++ library. Aligned loops: Zen 3 runs the loop of products a quarter slower where it starts at
  # the end of a cache line.
  set(base -mavx2 -mfma -mf16c -fno-exceptions)
  set(avx2 ${base} -falign-loops=64)
  set(avx512 ${base} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  set(avx512_vnni ${avx512} -mavx512vnni)
  set(avx512_bf16 ${avx512} -mavx512bf16 -mavx512vbmi -mavx512vnni)
  set(amx ${avx512_bf16} -mamx-tile -mamx-bf16 -mamx-int8)
  if(NOT DEFINED ${isa})
    message(FATAL_ERROR "dsa_isa_sources: unknown instruction set '${isa}'")
  endif()
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # The Wno flags: false alarms of g++ 12's own AVX-512 headers.
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS
      "${${isa}};-Wno-uninitialized;-Wno-maybe-uninitialized")
    target_sources(dsa_${name} PRIVATE ${ARGN})
    # tests/isa_symbols.sh looks at these objects.
    set_property(GLOBAL APPEND PROPERTY DSA_ISA_OBJECTS_${name} ${ARGN})
  endif()
endfunction()
