#include "kernels/decide/decide_rule.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::reference {

void decide(const Exec& /*exec*/, const DecideArgs& args) { decide_step(args); }

}  // namespace lockstep::kernels::reference
