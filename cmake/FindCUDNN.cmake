# cuDNN's headers beside the toolkit, in CUDNN_ROOT, or in the nvidia/cudnn folder of a Python wheel: CUDNN_FOUND,
# CUDNN_VERSION and the target CUDNN::headers. The library itself is opened at run time, so none is linked.
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDNN_ROOT}/include ${CUDAToolkit_INCLUDE_DIRS})
mark_as_advanced(CUDNN_INCLUDE_DIR)
if(CUDNN_INCLUDE_DIR)
  set(CUDNN_VERSION "")
  foreach(part MAJOR MINOR PATCHLEVEL)
    file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h line REGEX "^#define CUDNN_${part} ")
    string(REGEX REPLACE ".*CUDNN_${part} ([0-9]+).*" "\\1" number "${line}")
    list(APPEND CUDNN_VERSION ${number})
  endforeach()
  list(JOIN CUDNN_VERSION "." CUDNN_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)

if(CUDNN_FOUND AND NOT TARGET CUDNN::headers)
  add_library(CUDNN::headers INTERFACE IMPORTED)
  set_target_properties(CUDNN::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
