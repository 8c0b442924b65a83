#pragma once

#include <array>
#include <cstdint>
#include <dnnl.hpp>
#include <map>
#include <vector>

#include "kernels/matmul/host_memory.hpp"
#include "kernels/matmul/matmul.hpp"

namespace lockstep::kernels {

/// One rank's oneDNN state. Compiling a primitive takes milliseconds, packing a weight a pass over it, so both are
/// kept: primitives under everything that shapes them, packed weights under their number, layout and version, never
/// under an address, which a store may give to another weight.
///
/// Packed weights that were asked for by packed_bytes_of lie side by side on huge pages. Both stores are bounded. Not
/// thread-safe: a rank calls kernels from one thread.
class OnednnContext {
 public:
  /// A compiled product with its argument handles.
  struct Product {
    dnnl::matmul primitive;
    dnnl::memory a, b, c, bias;
    bool packed_b = false;
    bool supported = true;  ///< false: the library has only a slow plain loop for it
  };

  OnednnContext();

  /// The product for args' shapes, layouts and types with bf16 operands on `threads` threads; a packed b if it is a
  /// weight.
  [[nodiscard]] Product& product(const MatmulArgs& args, int threads);

  /// args.b in the layout that `product` wants, or an empty memory if the store is full.
  [[nodiscard]] dnnl::memory packed_weight(const MatmulArgs& args, const Product& product);

  /// What packed_bytes() will be once `products` have run. Compiles them, if they are not.
  [[nodiscard]] std::size_t packed_bytes_of(const std::vector<MatmulArgs>& products, int threads);

  [[nodiscard]] dnnl::stream& stream() { return stream_; }
  [[nodiscard]] std::size_t packed_bytes() const { return packed_bytes_; }
  [[nodiscard]] std::uint64_t packings() const { return packings_; }

 private:
  struct PackedWeight {
    dnnl::memory source, packed;
    dnnl::reorder reorder;
    char* place = nullptr;                      ///< in the arena, or null: memory of its own
    std::uint64_t version = ~std::uint64_t{0};  ///< none yet
    std::uint64_t last_use = 0;
  };
  using ProductKey = std::array<std::int64_t, 13>;
  using WeightKey = std::array<std::int64_t, 5>;

  [[nodiscard]] static WeightKey weight_key(const MatmulArgs& args);
  [[nodiscard]] Product compile(const MatmulArgs& args) const;
  /// Forgets weights that a whole round of the others has passed over; says whether `bytes` more fit now.
  [[nodiscard]] bool make_room(std::size_t bytes);
  /// A place for so many bytes in the arena, or null if it has none.
  [[nodiscard]] char* take_place(std::size_t bytes);

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<ProductKey, Product> products_;
  std::map<WeightKey, std::vector<PackedWeight>> weights_;
  std::size_t packed_bytes_ = 0;
  HostMemory arena_;  ///< made when the first weight is packed
  std::size_t arena_bytes_ = 0;
  std::size_t arena_used_ = 0;
  std::multimap<std::size_t, char*> left_places_;  ///< of forgotten weights, by size; still counted in packed_bytes_
  std::uint64_t uses_ = 0;
  std::uint64_t packings_ = 0;
};

/// args.b as the library describes it; with `packed`, in whatever layout it prefers.
[[nodiscard]] dnnl::memory::desc weight_desc(const MatmulArgs& args, bool packed);

/// Before the first call into the library: what LOCKSTEP_ISA and LOCKSTEP_BF16 keep from us it does not use either, so
/// that a forced run computes what a lesser CPU would. Without them the library takes what the CPU has, or
/// ONEDNN_MAX_CPU_ISA allows.
void limit_onednn();

/// Throws ErrorKind::environment with the library's words if `call` fails.
void check_onednn(dnnl_status_t status, const char* call);

}  // namespace lockstep::kernels
