// PREHEAT_HD marks the few functions that run on the host and, compiled by nvcc, on the device.
#pragma once

#ifdef __CUDACC__
#define PREHEAT_HD __host__ __device__
#else
#define PREHEAT_HD
#endif
