# cmake --install: the program, the library with its headers, the CUDA module where it was built, and what
# find_package(lockstep) reads. Any prefix; nothing of the build tree is referred to.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS lockstep EXPORT lockstep_targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${CMAKE_INSTALL_INCLUDEDIR}/lockstep)
# The module lies beside the library, which looks for it there.
if(TARGET lockstep_cuda)
  install(TARGETS lockstep_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(TARGETS lockstep_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
file(RELATIVE_PATH to_library ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
# The second is where the build has it.
lockstep_run_path(lockstep_program "$ORIGIN/${to_library}" "$ORIGIN/../lib")

# Headers include each other from the root of the sources: core/view.hpp. Those of one implementation stay at home.
foreach(layer core config kernels nn optim sched comm data job engine run)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${layer} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep
          FILES_MATCHING PATTERN "*.hpp" PATTERN "kernels/cpu" EXCLUDE PATTERN "kernels/emu" EXCLUDE
          PATTERN "kernels/cuda" EXCLUDE PATTERN "kernels/device" EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/run/lockstep.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/lockstep)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/lockstepConfig.cmake.in
                              ${CMAKE_BINARY_DIR}/generated/lockstepConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/lockstepConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/lockstepConfig.cmake ${CMAKE_BINARY_DIR}/generated/lockstepConfigVersion.cmake
        DESTINATION ${package})
install(EXPORT lockstep_targets NAMESPACE lockstep:: DESTINATION ${package})
