#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {

// One thread, a few hundred operations: the reference, whose bits do not depend on the instruction set.
void decide(const Exec& exec, const DecideArgs& args) { reference::decide(exec, args); }

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
