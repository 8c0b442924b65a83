#include "nn/tensor.hpp"

#include <fmt/format.h>

namespace lockstep::nn {

std::string Shape::text() const {
  std::string result = "[";
  for (int i = 0; i < rank; ++i) result += fmt::format("{}{}", i == 0 ? "" : ", ", dim[static_cast<std::size_t>(i)]);
  return result + "]";
}

Tensor::Tensor(Workspace& workspace, Shape shape, DType dtype, int id)
    : node_(std::make_shared<Node>(workspace, shape, dtype, id)) {}

Tensor::Node::Node(Workspace& w, Shape s, DType d, int i)
    : workspace(&w),
      offset(w.allocate(static_cast<std::size_t>(s.elements()) * size_of(d))),
      data(w.at(offset)),
      shape(s),
      dtype(d),
      id(i) {}

Tensor::Node::~Node() { workspace->free(offset); }

}  // namespace lockstep::nn
