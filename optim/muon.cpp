#include "optim/muon.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "optim/update_args.hpp"

namespace lockstep::optim {
namespace {

// The quintic's coefficients and the smallest norm, of Jordan's Muon and of torch's.
constexpr float coefficient_a = 3.4445F, coefficient_b = -4.7750F, coefficient_c = 2.0315F;
constexpr float smallest_norm = 1e-7F;

class Muon final : public Optimizer {
 public:
  Muon(const OptimizerOptions& options, std::vector<Tensor> tensors) : options_(options), tensors_(std::move(tensors)) {
    for (const Tensor& tensor : tensors_) {
      if (tensor.rows == 0) continue;
      const auto small = static_cast<std::size_t>(std::min(tensor.rows, tensor.cols));
      elements_ = std::max(elements_, padded(static_cast<std::size_t>(tensor.rows * tensor.cols)));
      small_elements_ = std::max(small_elements_, padded(small * small));
      tiles_ = std::max(tiles_, std::size_t{tensor.tiles.count});
    }
  }
  [[nodiscard]] std::string_view name() const override { return "Muon"; }
  [[nodiscard]] Granularity granularity() const override { return Granularity::whole_matrix; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"exp_avg", "exp_avg_sq"}; }
  [[nodiscard]] std::size_t scratch_bytes(std::size_t /*tile_count*/) const override {
    return 2 * (elements_ + small_elements_) * sizeof(float) + tiles_ * sizeof(double);
  }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    require(!tensors_.empty(), "Muon: the list of parameters is missing");
    for (std::size_t i = 0; i < tensors_.size();) {
      if (tensors_[i].rows > 0) {
        matrix(exec, update, moments.at(0), tensors_[i++]);
        continue;
      }
      const std::size_t first = i;
      while (i < tensors_.size() && tensors_[i].rows == 0) ++i;
      rest(exec, update, moments, tensors_[first].tiles.first,
           tensors_[i - 1].tiles.first + tensors_[i - 1].tiles.count);
    }
  }

 private:
  static std::size_t padded(std::size_t elements) { return (elements + 15) / 16 * 16; }

  /// AdamW for the tiles [begin, end).
  void rest(const Exec& exec, const Update& update, const std::vector<float*>& moments, std::uint32_t begin,
            std::uint32_t end) const {
    auto args = args_of<AdamArgs>(update);
    args.m = moments.at(0);
    args.v = moments.at(1);
    args.eps = static_cast<float>(options_.eps);
    args.tiles += begin;
    args.tile_count = end - begin;
    kernels::adam(exec, args);
  }

  void matrix(const Exec& exec, const Update& update, float* momentum, const Tensor& tensor) const {
    float* x = static_cast<float*>(update.scratch);
    float* y = x + elements_;
    float* const gram = y + elements_;
    float* const square = gram + small_elements_;
    auto* const squares = reinterpret_cast<double*>(square + small_elements_);
    const Tile* const tiles = update.tiles + tensor.tiles.first;

    kernels::muon_direction(exec, {.momentum = momentum,
                                   .grad = update.grad,
                                   .tiles = tiles,
                                   .tile_count = tensor.tiles.count,
                                   .groups = update.groups,
                                   .state = update.state,
                                   .direction = x,
                                   .squares = squares,
                                   .nesterov = options_.nesterov ? 1 : 0});
    kernels::muon_normalize(exec, {.x = x,
                                   .count = static_cast<std::size_t>(tensor.rows * tensor.cols),
                                   .squares = squares,
                                   .tile_count = tensor.tiles.count,
                                   .eps = smallest_norm});
    // Every rank makes these products for itself and must get the same bits, whatever its threads.
    Exec own = exec;
    own.invariant = true;
    own.tune = false;
    for (int step = 0; step < options_.ns_steps; ++step) {
      iterate(own, tensor, x, y, gram, square);
      std::swap(x, y);
    }
    // torch's matrix is [out, in], whose rows are our columns.
    const double sides = static_cast<double>(tensor.cols) / static_cast<double>(tensor.rows);
    kernels::muon_apply(exec, {.master = update.master,
                               .master_extent = update.master_extent,
                               .param16 = update.param16,
                               .param16_dtype = update.param16_dtype,
                               .param16_extent = update.param16_extent,
                               .tiles = tiles,
                               .tile_count = tensor.tiles.count,
                               .groups = update.groups,
                               .state = update.state,
                               .direction = x,
                               .ratio = static_cast<float>(std::sqrt(std::max(1.0, sides)))});
  }

  /// y <- (a I + b A + c A A) x with A = x x^T; where x is tall, y <- x (a I + b A + c A A) with A = x^T x, which is
  /// the same and smaller.
  static void iterate(const Exec& exec, const Tensor& tensor, const float* x, float* y, float* gram, float* square) {
    const std::int64_t rows = tensor.rows, cols = tensor.cols, n = std::min(rows, cols);
    const bool tall = rows > cols;
    kernels::matmul(exec, {.a = x,
                           .b = x,
                           .c = gram,
                           .m = n,
                           .n = n,
                           .k = tall ? rows : cols,
                           .lda = cols,
                           .ldb = cols,
                           .ldc = n,
                           .transpose_a = tall ? 1 : 0,
                           .transpose_b = tall ? 0 : 1});
    kernels::matmul(exec, {.a = gram, .b = gram, .c = square, .m = n, .n = n, .k = n, .lda = n, .ldb = n, .ldc = n});
    kernels::muon_polynomial(
        exec, {.square = square, .gram = gram, .n = n, .a = coefficient_a, .b = coefficient_b, .c = coefficient_c});
    kernels::matmul(exec, {.a = tall ? x : square,
                           .b = tall ? square : x,
                           .c = y,
                           .m = rows,
                           .n = cols,
                           .k = n,
                           .lda = tall ? cols : n,
                           .ldb = tall ? n : cols,
                           .ldc = cols});
  }

  OptimizerOptions options_;
  std::vector<Tensor> tensors_;
  std::size_t elements_ = 0;        ///< of the largest matrix
  std::size_t small_elements_ = 0;  ///< of the largest square of a smaller side
  std::size_t tiles_ = 0;           ///< of a matrix, at most
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(const OptimizerOptions& options, const std::vector<Tensor>& tensors) {
  return std::make_unique<Muon>(options, tensors);
}

}  // namespace lockstep::optim
