# The library: all modules in one. libdsa.so for programs, of which only the public symbols can be seen
# (public_symbols.map); libdsa.a for the tests, which see every module, and on request for others
# (DSA_INSTALL_STATIC). While the major version is 0 the soname carries the minor one too.

option(DSA_INSTALL_STATIC "Install libdsa.a beside libdsa.so" OFF)

set(dsa_objects "")
foreach(module base gemm indexer attention moe engine)
  list(APPEND dsa_objects $<TARGET_OBJECTS:dsa_${module}>)
endforeach()

add_library(dsa SHARED ${dsa_objects})
set(symbols ${CMAKE_CURRENT_SOURCE_DIR}/public_symbols.map)
set_target_properties(dsa PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINK_DEPENDS ${symbols})
target_link_options(dsa PRIVATE LINKER:--version-script=${symbols} LINKER:--no-undefined-version
                    LINKER:--as-needed)
target_link_libraries(dsa PRIVATE Threads::Threads PkgConfig::sentencepiece ${CMAKE_DL_LIBS})

add_library(dsa_static STATIC ${dsa_objects})
set_target_properties(dsa_static PROPERTIES OUTPUT_NAME dsa EXPORT_NAME static)
target_link_libraries(dsa_static PUBLIC Threads::Threads sentencepiece ${CMAKE_DL_LIBS})

foreach(library dsa dsa_static)
  target_include_directories(${library} INTERFACE
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/base/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${library} INTERFACE cxx_std_20)
endforeach()

# ---- installation: find_package(dsa) gives dsa::dsa; pkg-config --cflags --libs dsa ----

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dsa)
set(installed dsa)
if(DSA_INSTALL_STATIC)
  list(APPEND installed dsa_static)
endif()
install(TARGETS ${installed} EXPORT dsaTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT dsaTargets NAMESPACE dsa:: DESTINATION ${package_dir})
install(DIRECTORY include/dsa ${CMAKE_SOURCE_DIR}/base/include/dsa
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/dsaConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/dsaConfig.cmake.in
                              ${CMAKE_CURRENT_BINARY_DIR}/dsaConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dsaConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/dsaConfigVersion.cmake
        DESTINATION ${package_dir})
configure_file(${CMAKE_SOURCE_DIR}/cmake/dsa.pc.in ${CMAKE_CURRENT_BINARY_DIR}/dsa.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dsa.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
