#include "data/epoch_order.h"

#include <numeric>
#include <utility>

namespace preheat {

std::vector<std::uint32_t> epoch_order(std::uint64_t seed, std::uint32_t epoch,
                                       std::uint32_t examples) {
  std::vector<std::uint32_t> order(examples);
  std::iota(order.begin(), order.end(), 0U);
  // The order is fixed, since changing it changes every run: from the last position down to 1,
  // position i is swapped with position below(w, i + 1), where w is word i % 4 of
  // philox(seed, epoch_order, epoch, i / 4).
  Random4 words{};
  for (std::uint32_t i = examples; i-- > 1;) {
    if (i % 4 == 3 || i + 1 == examples) {
      words = philox(seed, RandomStream::epoch_order, epoch, i / 4);
    }
    std::swap(order[i], order[below(words.value[i % 4], i + 1)]);
  }
  return order;
}

}  // namespace preheat
