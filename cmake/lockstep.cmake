# Compiler contract of the whole project. Contraction is off everywhere: the update kernels are bit-equal on every
# implementation, and schedules are bit-exact (docs/numerics.md).
add_library(lockstep_options INTERFACE)
target_include_directories(lockstep_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(lockstep_options INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror -ffp-contract=off)
# gcc 12 warns falsely of overlapping copies in std::string (its bug 105651).
target_compile_options(lockstep_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(LOCKSTEP_SANITIZE)
  target_link_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

# lockstep_sanitize(target): watched by the sanitizers; its own optimisation level, if any, is set after this. What is not
# watched has the flags of a release build, so the compiler cache has it already.
function(lockstep_sanitize target)
  if(LOCKSTEP_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -UNDEBUG
                                             -Og -g1 -Wno-maybe-uninitialized)
  endif()
endfunction()
# Kernels of an instruction set and the emulated device's: one thread each under ThreadSanitizer (OMP_NUM_THREADS=1), which
# has nothing to find there, but in rank_sum, which reads what other ranks wrote.
function(lockstep_sanitize_kernels target)
  if(NOT LOCKSTEP_SANITIZE STREQUAL "thread")
    lockstep_sanitize(${target})
  else()
    set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/rank_sum/rank_sum_cpu.cpp PROPERTIES COMPILE_OPTIONS -fsanitize=thread)
  endif()
endfunction()

# lockstep_layer(name): the objects of folder <name>; *_cpu.cpp of kernels are compiled once per instruction set, *.cu
# are compiled here by g++ against the SIMT emulator (and by nvcc in cmake/cuda.cmake).
function(lockstep_layer name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.cpp)
  # The CUDA module's, built in kernels/cuda.
  list(FILTER sources EXCLUDE REGEX "/kernels/cuda/|/comm/nccl/|_cuda\\.cpp$")
  set(hot ${sources})
  list(FILTER hot INCLUDE REGEX "_cpu\\.cpp$")
  if(name STREQUAL "kernels")
    list(FILTER sources EXCLUDE REGEX "_cpu\\.cpp$")
  else()
    set(hot "")
  endif()
  add_library(lockstep_${name} OBJECT ${sources})
  lockstep_sanitize(lockstep_${name})
  lockstep_link_packages(lockstep_${name})
  set(objects $<TARGET_OBJECTS:lockstep_${name}>)
  if(hot)
    foreach(isa baseline avx2 avx512)
      set(target lockstep_${name}_${isa})
      add_library(${target} OBJECT ${hot})
      lockstep_sanitize_kernels(${target})
      lockstep_link_packages(${target})
      target_compile_definitions(${target} PRIVATE LOCKSTEP_ISA=${isa})
      target_compile_options(${target} PRIVATE -O3 -fno-math-errno -fno-trapping-math -fopenmp-simd ${LOCKSTEP_ISA_FLAGS_${isa}})
      list(APPEND objects $<TARGET_OBJECTS:${target}>)
    endforeach()
  endif()
  if(name STREQUAL "kernels")
    file(GLOB_RECURSE device_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.cu)
    if(device_sources)
      add_library(lockstep_kernels_emu OBJECT ${device_sources})
      set_source_files_properties(${device_sources} PROPERTIES LANGUAGE CXX)
      lockstep_sanitize_kernels(lockstep_kernels_emu)
      lockstep_link_packages(lockstep_kernels_emu)
      target_compile_definitions(lockstep_kernels_emu PRIVATE LOCKSTEP_SIMT_EMU=1)
      target_compile_options(lockstep_kernels_emu PRIVATE -x c++ -O2 -Wno-unknown-pragmas)
      list(APPEND objects $<TARGET_OBJECTS:lockstep_kernels_emu>)
    endif()
  endif()
  if(NOT name IN_LIST LOCKSTEP_LEAVE_OUT)
    set_property(GLOBAL APPEND PROPERTY LOCKSTEP_OBJECTS ${objects})
  endif()
endfunction()

# What program and CUDA module compare before they talk (cmake/build_id.cmake), made anew by every build.
set(LOCKSTEP_GENERATED ${CMAKE_BINARY_DIR}/generated)
function(lockstep_build_id)
  add_custom_target(lockstep_build_id
    COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR} -DHEADER=kernels/cuda_loader.hpp,comm/nccl_loader.hpp
            "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -DVERSION=${PROJECT_VERSION}
            -DOUTPUT=${LOCKSTEP_GENERATED}/lockstep_build_id.h -P ${PROJECT_SOURCE_DIR}/cmake/build_id.cmake
    BYPRODUCTS ${LOCKSTEP_GENERATED}/lockstep_build_id.h
    COMMENT "Build id" VERBATIM)
  target_include_directories(lockstep_kernels PRIVATE ${LOCKSTEP_GENERATED})
  add_dependencies(lockstep_kernels lockstep_build_id)
endfunction()

# The commit, for `lockstep bench` (cmake/commit.cmake): one small file is built anew when it changes.
function(lockstep_commit)
  add_custom_target(lockstep_commit
    COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR} -DOUTPUT=${LOCKSTEP_GENERATED}/lockstep_commit.h
            -P ${PROJECT_SOURCE_DIR}/cmake/commit.cmake
    BYPRODUCTS ${LOCKSTEP_GENERATED}/lockstep_commit.h
    COMMENT "Commit" VERBATIM)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/run/commit.cpp PROPERTIES INCLUDE_DIRECTORIES ${LOCKSTEP_GENERATED})
  add_dependencies(lockstep_run lockstep_commit)
endfunction()

set(LOCKSTEP_ISA_FLAGS_baseline "")
set(LOCKSTEP_ISA_FLAGS_avx2 -march=haswell -mtune=generic)
set(LOCKSTEP_ISA_FLAGS_avx512 -march=skylake-avx512 -mtune=icelake-server -mprefer-vector-width=512)

function(lockstep_link_packages target)
  target_link_libraries(${target} PRIVATE lockstep_options fmt::fmt OpenMP::OpenMP_CXX MPI::MPI_CXX DNNL::dnnl
                                          nlohmann_json::nlohmann_json yaml-cpp ${LOCKSTEP_XXHASH} ZLIB::ZLIB ${LOCKSTEP_PCRE2} dl)
endfunction()

# The one shared library; links no NVIDIA library.
function(lockstep_library)
  get_property(objects GLOBAL PROPERTY LOCKSTEP_OBJECTS)
  add_library(lockstep SHARED ${objects})
  add_library(lockstep::lockstep ALIAS lockstep)
  target_link_libraries(lockstep PUBLIC $<BUILD_INTERFACE:lockstep_options> fmt::fmt PRIVATE OpenMP::OpenMP_CXX MPI::MPI_CXX DNNL::dnnl
                                        nlohmann_json::nlohmann_json yaml-cpp ${LOCKSTEP_XXHASH} ZLIB::ZLIB ${LOCKSTEP_PCRE2} dl)
  target_compile_features(lockstep INTERFACE cxx_std_20)
  lockstep_run_path(lockstep "$ORIGIN")
  if(LOCKSTEP_SANITIZE AND NOT LOCKSTEP_SANITIZE_TESTS)
    # Inline functions that a test has too, unwatched, do not take the place of the library's.
    target_link_options(lockstep PRIVATE -Wl,-Bsymbolic-functions)
  endif()
endfunction()

# What is installed has its final run path in the build already. To change it later CMake would fill the build's up with
# ':', and an empty entry of a run path is the current folder: whoever can write there could give the program another
# library (tools/check_run_paths.sh).
function(lockstep_run_path target)
  set_target_properties(${target} PROPERTIES BUILD_WITH_INSTALL_RPATH TRUE INSTALL_RPATH_USE_LINK_PATH TRUE INSTALL_RPATH "${ARGN}")
endfunction()

# Reading and writing safetensors files, for programs that want nothing else: no MPI, no OpenMP.
function(lockstep_safetensors_library)
  add_library(lockstep_safetensors_only STATIC $<TARGET_OBJECTS:lockstep_safetensors> $<TARGET_OBJECTS:lockstep_files>
              ${PROJECT_SOURCE_DIR}/core/error.cpp ${PROJECT_SOURCE_DIR}/core/text.cpp ${PROJECT_SOURCE_DIR}/core/utf8.cpp)
  lockstep_sanitize(lockstep_safetensors_only)
  add_library(lockstep::safetensors ALIAS lockstep_safetensors_only)
  target_link_libraries(lockstep_safetensors_only PUBLIC $<BUILD_INTERFACE:lockstep_options> fmt::fmt PRIVATE ${LOCKSTEP_XXHASH})
  target_compile_features(lockstep_safetensors_only INTERFACE cxx_std_20)
  set_target_properties(lockstep_safetensors_only PROPERTIES EXPORT_NAME safetensors OUTPUT_NAME lockstep_safetensors)
endfunction()

# A test's own code is compiled once and runs for a moment: -O3 of it takes half as long again and finds nothing more.
function(lockstep_test_options target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
  if(LOCKSTEP_SANITIZE_TESTS)
    lockstep_sanitize(${target})
  endif()
endfunction()

# lockstep_test(name sources...): one fat GoogleTest program a layer.
function(lockstep_test name)
  add_executable(${name} ${ARGN})
  lockstep_test_options(${name})
  target_link_libraries(${name} PRIVATE lockstep GTest::gtest_main GTest::gmock nlohmann_json::nlohmann_json
                                        MPI::MPI_CXX OpenMP::OpenMP_CXX dl lockstep_test_support)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES PROPERTIES TIMEOUT 300 LABELS ${name})
endfunction()
