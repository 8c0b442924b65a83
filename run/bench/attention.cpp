#include "run/bench/benches.hpp"
#include "run/bench/products.hpp"

namespace lockstep::run::bench {

Report bench_attention(RankContext& rank, const AttentionShape& shape, const Sampling& sampling) {
  const std::int64_t batch = shape.batch > 0 ? shape.batch : (rank.place.device->immediate() ? 4 : 64);
  const std::int64_t rows = batch * shape.length * shape.heads, plain = rows * shape.head_size;
  // Pairs of a query with itself and what came before.
  const double pairs = static_cast<double>(rows) * static_cast<double>(shape.length + 1) / 2;
  const double product_flops = 2 * pairs * static_cast<double>(shape.head_size);
  Report report{.bench = "attention", .lines = {}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Workbench bench(rank);
    const Exec exec = bench.exec();
    const auto elements = static_cast<std::size_t>(plain);
    const AttentionForwardArgs forward = {.qkv = bench.numbers(3 * elements, dtype, 1.0F),
                                          .y = bench.numbers(elements, dtype, 1.0F),
                                          .lse = bench.memory<float>(static_cast<std::size_t>(rows)),
                                          .batch = batch,
                                          .length = shape.length,
                                          .heads = shape.heads,
                                          .head_size = shape.head_size,
                                          .dtype = dtype};
    AttentionBackwardArgs backward = {.dy = bench.numbers(elements, dtype, 1.0F),
                                      .qkv = forward.qkv,
                                      .y = forward.y,
                                      .lse = forward.lse,
                                      .dqkv = bench.numbers(3 * elements, dtype, 1.0F),
                                      .batch = batch,
                                      .length = shape.length,
                                      .heads = shape.heads,
                                      .head_size = shape.head_size,
                                      .dtype = dtype};
    backward.scratch = bench.memory<std::byte>(kernels::scratch_bytes(exec, backward));
    std::vector<Task> tasks = peak_products(bench, dtype, shape.peak);
    const auto add = [&](const char* name, double products, std::function<void()> run) {
      tasks.push_back(
          {.name = fmt::format("{} {}", to_string(dtype), name),
           .shape = fmt::format("{} x {}, {} heads of {}", batch, shape.length, shape.heads, shape.head_size),
           .flops = products * product_flops,
           .ceiling = peak_group(dtype),
           .run = std::move(run)});
    };
    add("forward", 2, [exec, forward] { kernels::attention_forward(exec, forward); });
    add("backward", 5, [exec, backward] { kernels::attention_backward(exec, backward); });
    for (Measured& line : measure(rank, bench.stream(), std::move(tasks), sampling))
      report.lines.push_back(std::move(line));
  }
  report.notes = {"FLOPs are those of the unmasked half: 2 products forward, 5 backward"};
  return report;
}

}  // namespace lockstep::run::bench
