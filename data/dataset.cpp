#include "data/dataset.hpp"

#include "core/error.hpp"

namespace lockstep::data {

std::vector<std::int32_t> Dataset::encode(const std::string&) const {
  fail(ErrorKind::config, "this run was trained on {}, which is not text: only data.type: text can encode a prompt",
       describe());
}

std::string Dataset::decode(const std::vector<std::int32_t>&) const {
  fail(ErrorKind::config, "this run was trained on {}, which is not text: only data.type: text can print tokens",
       describe());
}

}  // namespace lockstep::data
