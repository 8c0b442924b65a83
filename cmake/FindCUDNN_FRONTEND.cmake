# cudnn_frontend, headers alone, beside the toolkit, in CUDNN_FRONTEND_ROOT, or where CUDNN_FRONTEND_INCLUDE_DIR says:
# CUDNN_FRONTEND_FOUND and the target CUDNN_FRONTEND::headers.
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${CUDNN_FRONTEND_ROOT}/include ${CUDAToolkit_INCLUDE_DIRS})
mark_as_advanced(CUDNN_FRONTEND_INCLUDE_DIR)
if(CUDNN_FRONTEND_INCLUDE_DIR)
  set(CUDNN_FRONTEND_VERSION "")
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS ${CUDNN_FRONTEND_INCLUDE_DIR}/cudnn_frontend_version.h line REGEX "^#define CUDNN_FRONTEND_${part}_VERSION ")
    string(REGEX REPLACE ".*_VERSION ([0-9]+).*" "\\1" number "${line}")
    list(APPEND CUDNN_FRONTEND_VERSION ${number})
  endforeach()
  list(JOIN CUDNN_FRONTEND_VERSION "." CUDNN_FRONTEND_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN_FRONTEND REQUIRED_VARS CUDNN_FRONTEND_INCLUDE_DIR
                                                 VERSION_VAR CUDNN_FRONTEND_VERSION)

if(CUDNN_FRONTEND_FOUND AND NOT TARGET CUDNN_FRONTEND::headers)
  add_library(CUDNN_FRONTEND::headers INTERFACE IMPORTED)
  set_target_properties(CUDNN_FRONTEND::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_FRONTEND_INCLUDE_DIR})
endif()
