// One CPU backend for the tests that make many runs, and a base of those that change a part of it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "backend/backend.h"

namespace preheat {

inline Backend& shared_backend() {
  static const std::unique_ptr<Backend> backend = make_backend(DeviceChoice::cpu);
  return *backend;
}

/// A backend that passes everything on to it, of which tests change a part.
class ForwardingBackend : public Backend {
 public:
  std::string name() const override { return one_.name(); }
  std::string device() const override { return one_.device(); }
  std::string library() const override { return one_.library(); }
  bool computes_in(Precision precision) const override { return one_.computes_in(precision); }
  int concurrent_replicas(int threads) const override { return one_.concurrent_replicas(threads); }
  std::shared_ptr<ResidentDataset> load(const Dataset& data) override { return one_.load(data); }
  void require_memory(const Network& network, const ReplicaOptions& options) const override {
    one_.require_memory(network, options);
  }
  void require_memory(const Network& network, std::int64_t examples) const override {
    one_.require_memory(network, examples);
  }
  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    return one_.compile(network, options, initial, std::move(train));
  }
  std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                               std::shared_ptr<const ResidentDataset> data,
                               std::int64_t examples) override {
    return one_.probe(network, options, std::move(data), examples);
  }
  Benches& benches() override { return one_.benches(); }

 private:
  Backend& one_ = shared_backend();
};

}  // namespace preheat
