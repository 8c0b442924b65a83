#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {

void accuracy(const Exec& exec, const AccuracyArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    const int threads = threads_for(exec.threads, args.rows * args.classes);
    std::int64_t correct = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static) reduction(+ : correct)
    for (std::int64_t r = 0; r < args.rows; ++r)
      correct +=
          is_correct(static_cast<const T*>(args.logits) + r * args.stride, args.classes, args.targets[r]) ? 1 : 0;
    *args.correct += correct;
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
