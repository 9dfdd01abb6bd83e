# CUDA, where it is: DSA_CUDA is ON by default if nvcc is found. Kernels are compiled to cubins for sm_90a and
# linked in as bytes; the runtime is linked statically, the driver and other libraries are opened at run time.
#
# dsa_cubins(TARGET NAME SOURCE [NAME SOURCE...]): compiles each CUDA source and adds the bytes to TARGET
# as `extern "C" const unsigned char NAME[]`.

find_program(DSA_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_HOME PATH_SUFFIXES bin)
if(DSA_NVCC)
  get_filename_component(nvcc_real ${DSA_NVCC} REALPATH)
  get_filename_component(dsa_cuda_root ${nvcc_real}/../.. ABSOLUTE)
  find_path(DSA_CUDA_INCLUDE cuda_runtime_api.h HINTS ${dsa_cuda_root}/include)
  find_library(DSA_CUDART libcudart_static.a HINTS ${dsa_cuda_root}/lib64 ${dsa_cuda_root}/lib)
endif()
if(DSA_NVCC AND DSA_CUDA_INCLUDE AND DSA_CUDART AND NOT DSA_SANITIZE)
  set(dsa_cuda_default ON)
else()
  set(dsa_cuda_default OFF)
endif()
option(DSA_CUDA "Build the CUDA kernels (sm_90a)" ${dsa_cuda_default})
if(NOT DSA_CUDA)
  return()
endif()
if(NOT DSA_NVCC OR NOT DSA_CUDA_INCLUDE OR NOT DSA_CUDART)
  message(FATAL_ERROR "DSA_CUDA is ON, but nvcc, cuda_runtime_api.h or libcudart_static.a was not found "
                      "(nvcc: '${DSA_NVCC}', headers: '${DSA_CUDA_INCLUDE}', runtime: '${DSA_CUDART}')")
endif()
enable_language(ASM)

set(DSA_NVCC_FLAGS -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a)
option(DSA_CUDA_RACECHECK "Kernels for compute-sanitizer's racecheck: every lane gives back what it read" OFF)
if(DSA_CUDA_RACECHECK)
  list(APPEND DSA_NVCC_FLAGS -DDSA_EVERY_LANE_RELEASES)
endif()

# Adds the bytes of files to TARGET as `extern "C" const unsigned char NAME[]`, a zero behind each.
function(dsa_embed target)
  set(pairs ${ARGN})
  set(assembly "")
  set(files "")
  while(pairs)
    list(POP_FRONT pairs name file)
    string(APPEND assembly ".global ${name}\n.balign 64\n${name}:\n.incbin \"${file}\"\n.byte 0\n")
    list(APPEND files ${file})
  endwhile()
  string(MD5 set_of_names "${ARGN}")
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}_${set_of_names}.S)
  file(GENERATE OUTPUT ${source}
       CONTENT ".section .rodata\n${assembly}.section .note.GNU-stack,\"\",%progbits\n")
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${files}" GENERATED TRUE)
  target_sources(${target} PRIVATE ${source})
endfunction()

function(dsa_cubins target)
  set(pairs ${ARGN})
  set(cubins "")
  while(pairs)
    list(POP_FRONT pairs name source)
    set(cubin ${CMAKE_CURRENT_BINARY_DIR}/${name}.cubin)
    add_custom_command(OUTPUT ${cubin}
      COMMAND ${DSA_NVCC} ${DSA_NVCC_FLAGS} -I ${CMAKE_SOURCE_DIR} -MD -MF ${cubin}.d -cubin -o ${cubin} ${source}
      DEPENDS ${source} DEPFILE ${cubin}.d COMMENT "Compiling ${name}.cubin" VERBATIM)
    list(APPEND cubins ${name} ${cubin})
  endwhile()
  dsa_embed(${target} ${cubins})
endfunction()
