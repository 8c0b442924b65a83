#include <algorithm>
#include <array>

#include "nn/ops.hpp"
#include "run/bench/benches.hpp"
#include "run/bench/products.hpp"

namespace lockstep::run::bench {

Task product(Workbench& bench, const std::string& name, MatmulArgs args) {
  const auto elements = [](std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); };
  args.a = bench.numbers(elements(args.m, args.k), args.dtype, 1.0F);
  args.b = bench.numbers(elements(args.k, args.n), args.dtype, 0.02F);
  args.c = bench.numbers(elements(args.m, args.n), args.c_dtype, 1.0F);
  args.lda = args.transpose_a != 0 ? args.m : args.k;
  args.ldb = args.transpose_b != 0 ? args.k : args.n;
  args.ldc = args.n;
  const auto m = static_cast<double>(args.m), n = static_cast<double>(args.n), k = static_cast<double>(args.k);
  Task task{.name = name,
            .shape = fmt::format("{} x {} x {}", args.m, args.n, args.k),
            .bytes = (m * k + k * n) * static_cast<double>(size_of(args.dtype)) +
                     m * n * static_cast<double>(size_of(args.c_dtype)) * (args.accumulate != 0 ? 2 : 1),
            .flops = 2 * m * n * k,
            .run = {}};
  task.run = [exec = bench.exec(), args] { kernels::matmul(exec, args); };
  return task;
}

std::string peak_group(DType dtype) { return fmt::format("large {} products", to_string(dtype)); }

std::vector<Task> peak_products(Workbench& bench, DType dtype, std::int64_t edge) {
  if (edge == 0) edge = bench.device().immediate() ? 2048 : 8192;
  const std::int64_t half = std::max<std::int64_t>(1, edge / 2);
  const auto large = [&](const char* name, std::int64_t m, std::int64_t n, std::int64_t k, std::int32_t weight) {
    Task task = product(bench, fmt::format("{} {} product", to_string(dtype), name),
                        {.m = m, .n = n, .k = k, .dtype = dtype, .c_dtype = dtype, .b_param = weight, .b_version = 1});
    task.group = peak_group(dtype);
    return task;
  };
  return {large("square", edge, edge, edge, 1'000'000), large("wide", half, 2 * edge, half, 1'000'001)};
}

Report bench_gemm(RankContext& rank, const GemmShape& shape, const Sampling& sampling) {
  const std::int64_t tokens = shape.tokens > 0 ? shape.tokens : (rank.place.device->immediate() ? 1024 : 65536);
  const std::int64_t width = shape.width;
  struct Linear {
    const char* name;
    std::int64_t rows, in, out;
  };
  Report report{.bench = "gemm", .lines = {}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    // A measurement of its own: the memory of one precision is given back before the other's is taken.
    Workbench bench(rank);
    std::vector<Task> tasks = peak_products(bench, dtype, shape.peak);
    const std::int64_t head_rows = std::min(tokens, nn::head_chunk_rows(tokens, shape.vocabulary, dtype));
    std::int32_t weight = 0;
    const auto add = [&](const Linear& layer, const char* part, MatmulArgs args, bool of_weight) {
      args.dtype = dtype;
      if (of_weight) args.b_param = weight++, args.b_version = 1;
      tasks.push_back(product(bench, fmt::format("{} {} {}", to_string(dtype), layer.name, part), args));
      tasks.back().ceiling = peak_group(dtype);
    };
    for (const Linear& layer : std::array<Linear, 4>{{{"qkv", tokens, width, 3 * width},
                                                      {"projection", tokens, width, width},
                                                      {"fc", tokens, width, 4 * width},
                                                      {"fc projection", tokens, 4 * width, width}}}) {
      add(layer, "y", {.m = layer.rows, .n = layer.out, .k = layer.in, .c_dtype = dtype}, true);
      add(layer, "dx", {.m = layer.rows, .n = layer.in, .k = layer.out, .transpose_b = 1, .c_dtype = dtype}, true);
      add(layer, "dw", {.m = layer.in, .n = layer.out, .k = layer.rows, .transpose_a = 1, .accumulate = 1}, false);
    }
    const Linear head{"head", head_rows, width, shape.vocabulary};
    add(head, "y", {.m = head.rows, .n = head.out, .k = width, .transpose_b = 1, .c_dtype = dtype}, true);
    add(head, "dx", {.m = head.rows, .n = width, .k = head.out, .c_dtype = dtype}, true);
    add(head, "dw", {.m = head.out, .n = width, .k = head.rows, .transpose_a = 1, .accumulate = 1}, false);
    for (Measured& line : measure(rank, bench.stream(), std::move(tasks), sampling))
      report.lines.push_back(std::move(line));
  }
  report.notes = {
      "y: forward, dx: gradient of the input, dw: of the weight, added to what is there; m x n x k. The head "
      "takes its rows in chunks, as a step does. Packed copies of weights are made once, outside the times"};
  return report;
}

}  // namespace lockstep::run::bench
