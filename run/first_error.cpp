#include "run/first_error.hpp"

#include <fmt/format.h>

#include <span>
#include <vector>

namespace lockstep::run {

void FirstError::rethrow(const std::string& before) const {
  if (!failed()) return;
  if (trouble_) throw files::DiskTrouble(before + text_);
  throw Error(kind_, before + text_);
}

void FirstError::agree(comm::Communicator& comm) {
  struct Told {
    std::int32_t kind = 0;  // 0: well
    std::int32_t trouble = 0;
  };
  std::vector<Told> all(static_cast<std::size_t>(comm.size()));
  if (failed()) all[static_cast<std::size_t>(comm.rank())] = {static_cast<std::int32_t>(kind_), trouble_ ? 1 : 0};
  comm.all_gather_values(std::span(all));
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].kind == 0) continue;
    comm.broadcast_text(text_, static_cast<int>(r));
    *this = {static_cast<ErrorKind>(all[r].kind), all[r].trouble != 0, text_};
    if (all.size() > 1 && r > 0) text_ = fmt::format("rank {}: {}", r, text_);
    return;
  }
}

}  // namespace lockstep::run
