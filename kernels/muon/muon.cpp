#include "kernels/muon/muon.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void muon_direction(const Exec& exec, const MuonDirectionArgs& args) {
  require(args.momentum != nullptr && args.direction != nullptr && args.squares != nullptr,
          "muon: momentum, direction or squares is null");
  require(args.tiles != nullptr && args.tile_count > 0 && args.groups != nullptr && args.state != nullptr,
          "muon: tiles, groups or state is null");
  require(is_valid(args.grad), "muon: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  check(exec.table->muon_direction(exec, args));
}

void muon_normalize(const Exec& exec, const MuonNormalizeArgs& args) {
  require(args.x != nullptr && args.squares != nullptr && args.tile_count > 0, "muon: x or squares is null");
  check(exec.table->muon_normalize(exec, args));
}

void muon_polynomial(const Exec& exec, const MuonPolynomialArgs& args) {
  require(args.square != nullptr && args.gram != nullptr && args.n > 0, "muon: square or gram is null");
  check(exec.table->muon_polynomial(exec, args));
}

void muon_apply(const Exec& exec, const MuonApplyArgs& args) {
  require(args.master != nullptr && args.direction != nullptr, "muon: master or direction is null");
  require(args.tiles != nullptr && args.tile_count > 0 && args.groups != nullptr && args.state != nullptr,
          "muon: tiles, groups or state is null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "muon: the parameters' copy is bf16 or fp16");
  check(exec.table->muon_apply(exec, args));
}

}  // namespace lockstep::kernels
