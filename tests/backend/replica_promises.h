// What every backend must guarantee of its replicas, as one suite: a backend that includes this and
// instantiates ReplicaTest and ReplicaBits makes every promise.
#pragma once

#include "backend/replica_failure_promises.h"
#include "backend/replica_pass_promises.h"
#include "backend/replica_stage_promises.h"
#include "backend/replica_state_promises.h"
#include "backend/replica_update_promises.h"
