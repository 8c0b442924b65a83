#pragma once

#include <string>

#include "comm/nccl_settings.hpp"
#include "comm/nccl_watchdog.hpp"
#include "core/device.hpp"

namespace lockstep::comm {

/// Collectives as calls of NCCL's on one stream. Each function returns when NCCL has put its work into the stream, and
/// throws what the watchdog found, or ErrorKind::hang if NCCL does not get that far within the timeout. A text `what`
/// names the collective in messages.
class NcclCalls {
 public:
  NcclCalls(const NcclApi& api, NcclWatchdog& watchdog, DeviceApi& device, int rank, int ranks,
            const NcclOptions& options);

  /// Makes this rank's end and waits until it can be used.
  void init(const NcclUniqueId& id);
  /// Ends it in an orderly way, up to what destroy() does; false if that takes longer than `patience` or fails.
  [[nodiscard]] bool finalize(Seconds patience) noexcept;

  void all_reduce(const Buffer& data, Reduce op, StreamRef stream, const std::string& what);
  void reduce_scatter(const Buffer& data, const Parts& parts, Reduce op, StreamRef stream, const std::string& what);
  void all_gather(const Buffer& data, const Parts& parts, StreamRef stream, const std::string& what);
  void broadcast(const Buffer& data, int root, StreamRef stream, const std::string& what);
  /// Part r of `from` goes to rank r, and part r of `to` comes from it; both by rank.
  void exchange(const Buffer& from, const Parts& sends, const Buffer& to, const Parts& receives, StreamRef stream,
                const std::string& what);

  /// What is left of a rank that unwinds: NCCL may still write there.
  void leak_staging() noexcept;

 private:
  [[nodiscard]] bool is_staged(const Buffer& data, Reduce op) const;
  void staged_sum(const Buffer& data, const Parts& parts, bool gather, StreamRef stream, const std::string& what);
  void sum_in_tree_order(std::vector<const void*> sources, std::byte* partials, std::size_t partial_bytes,
                         const Buffer& to, StreamRef stream);
  void settle(NcclResult result, const std::string& what);
  void check_result(NcclResult result, const std::string& what);
  template <class Function>
  void call(const std::string& what, const Function& function);
  template <class Body>
  void group(const std::string& what, const Body& body);

  const NcclApi& api_;
  NcclWatchdog& watchdog_;
  DeviceApi& device_;
  std::size_t rank_;
  std::size_t ranks_;
  NcclOptions options_;
  std::unique_ptr<Arena> staging_;
};

}  // namespace lockstep::comm
