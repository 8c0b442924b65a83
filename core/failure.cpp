#include "core/failure.hpp"

#include <new>

namespace lockstep {

Failure failure_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& typed) {
    return {typed.kind(), typed.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::environment,
            "memory is exhausted; use a smaller model or micro-batch, or fewer ranks on this host"};
  } catch (const std::exception& other) {
    return {ErrorKind::internal, other.what()};
  } catch (...) {
    return {ErrorKind::internal, "an exception of unknown type"};
  }
}

}  // namespace lockstep
