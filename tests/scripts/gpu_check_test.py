#!/usr/bin/env python3
"""scripts/gpu_check.sh with stand-ins for the GPU, its tools and our programs: what passes, fails and
is not run. And the files of scripts/peers.

gpu_check_test.py SCRIPT
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

SCRIPT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "scripts/gpu_check.sh")
sys.path.insert(0, str(SCRIPT.parent / "peers"))
from figures import Figures, Missing, said  # noqa: E402

OPENS = "# libcublas.so.13 libcublasLt.so.13"  # what preheat opens
# What a stand-in says and how long it takes comes from the environment.
FAKES = {
    "bin/preheat": f'{OPENS}\n'
                   'if [ "$1" = info ]; then echo "cuda   ${CUDA:-Some GPU, fast}"; else echo "$@"; fi',
    "bin/preheat_gpu_tests": 'echo "unwritten=$PREHEAT_LEAVE_UNWRITTEN"; echo "$TESTS"\n'
                             'sleep "${TESTS_TAKE:-0}"; exit "${TESTS_EXIT:-0}"',
    "tools/nvidia-smi": "echo Some GPU",
    "tools/ldd": 'echo "	libother.so.1 => ${LIBRARY:-/lib/libother.so.1} (0x1)"',
    # --tool TOOL --error-exitcode CODE --print-limit 0
    "tools/compute-sanitizer": 'echo "$TOOL_SAYS"; code=$4; shift 6\n'
                               '"$@" || exit; [ -z "$TOOL_SAYS" ] || exit "$code"',
    "tools/ncu": 'echo "path=$LD_LIBRARY_PATH"; echo "$@"\n'
                 'while [ "$1" != --log-file ]; do shift; done; echo "$NCU" >"$2"',
}
PEER = """import os, pathlib, sys
pathlib.Path(sys.argv[2]).write_text("{}")
print(*sys.argv)
raise SystemExit(int(os.environ.get("PEERS_EXIT", 0)))
"""
# Steps of 1.1 or 1.3 ms, and 1 with any plans. PyTorch's graph takes 1.25 times ours, in fp32 1.15;
# one is missing.
STEPS = f"""#!/usr/bin/env python3
{OPENS}
""" + """import json, sys
if sys.argv[1] == "info":
    raise SystemExit(print("cuda   Some GPU, fast"))
print(*sys.argv)
given = dict(word.split("=") for word in sys.argv if "=" in word)
precision = given["train.precision"]
ms = 1 if given["train.deterministic"] == "false" else 1.3 if "resnet20" in sys.argv[3] else 1.1
ratio = None if given["data.batch_size"] == "1024" else 1.15 if precision == "fp32" else 1.25
with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
    json.dump({"step_ms": {"median": ms}, "first_update_seconds": 1,
               "peers": [{"name": f"PyTorch 2, eager-{precision}", "ratio": 9},
                         {"name": f"PyTorch 2, graph-{precision}", "ratio": ratio}]}, file)
"""
PASSED = "[  PASSED  ] 5 tests."


class GpuCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bundle = pathlib.Path(folder.name) / "bundle"
        self.out = pathlib.Path(folder.name) / "out"
        for name, text in FAKES.items():
            self.put(name, f"#!/bin/bash\n{text}\n").chmod(0o755)
        for name in ("step", "update"):
            self.put(f"scripts/peers/{name}.py", PEER)
        self.put("modules/torch.py", "class cuda:\n    is_available = lambda: True\n")
        for name in ("cudnn.so.9", "cublas.so.13", "cublasLt.so.13", "nvrtc.so.13"):
            self.put(f"lib/lib{name}", "")
        shutil.copy(SCRIPT, self.bundle / "scripts")

    def put(self, name, text):
        path = self.bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def check(self, *arguments, **environment):
        """The exit code; `verdicts` has those of the stages, and `last` is the summary's last row."""
        result = subprocess.run(
            [self.bundle / "scripts/gpu_check.sh", "--out", self.out, *arguments],
            env={**os.environ, "PYTHONPATH": str(self.bundle / "modules"), "TESTS": PASSED,
                 "PATH": f"{self.bundle}/tools:{os.environ['PATH']}", **environment},
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.said = result.stdout + result.stderr
        if result.returncode == 2:
            return 2
        rows = (self.out / "summary.txt").read_text().splitlines()
        self.verdicts = {row.split()[0]: re.search("PASS|FAIL|NOT RUN", row)[0] for row in rows[1:-1]}
        self.last = " ".join(rows[-1].split())
        return result.returncode

    def log(self, stage):
        return (self.out / f"{stage}.log").read_text()

    def test_everything_passes(self):
        self.assertEqual(self.check("--only", "tests,sanitizer"), 0, self.said)
        self.assertEqual(list(self.verdicts), ["environment", "machine", "tests", "memcheck",
                                               "racecheck", "initcheck", "synccheck"])
        self.assertEqual(set(self.verdicts.values()), {"PASS"})
        self.assertRegex(self.last, r"^all \d+ PASS 0 of 7 stages NOT RUN$")

    def test_a_missing_library_fails(self):
        self.assertEqual(self.check("--only", "tests", LIBRARY="not found"), 1)
        self.assertEqual(self.verdicts["environment"], "FAIL")
        self.assertIn("not found: libother.so.1", self.said)

    def test_cuda_is_of_the_version_that_the_program_was_built_with(self):
        self.put("bin/preheat", f"#!/bin/bash\n{FAKES['bin/preheat']}".replace(".so.13", ".so.99"))
        names = [f"{name}.so.99" for name in ("libcublas", "libcublasLt", "libnvrtc")]
        self.assertEqual(self.check("--only", "tests"), 1)
        self.assertIn(f"not found: {' '.join(names)}\n", self.said)
        for name in names:
            self.put(f"lib/{name}", "")
        self.assertEqual(self.check("--only", "tests"), 0, self.said)

    def test_only_initcheck_leaves_memory_unwritten(self):
        self.check("--only", "tests,sanitizer")
        for stage in ("tests", "memcheck", "racecheck", "initcheck", "synccheck"):
            self.assertEqual("unwritten=1" in self.log(stage), stage == "initcheck", stage)

    def test_a_kernel_may_not_read_what_was_never_written_but_a_copy_may(self):
        by_host = "Uninitialized access at 0x7f00 on access by cudaMemcpy source"
        self.assertEqual(self.check("--only", "memcheck,initcheck", TOOL_SAYS=by_host), 1)
        self.assertEqual(self.verdicts["memcheck"], "FAIL")
        self.assertEqual(self.verdicts["initcheck"], "PASS")
        by_kernel = "Uninitialized __global__ memory read of size 4 bytes"
        self.assertEqual(self.check("--only", "initcheck", TOOL_SAYS=by_kernel), 1)
        self.assertEqual(self.verdicts["initcheck"], "FAIL")

    def test_a_failed_test_fails(self):
        self.assertEqual(self.check("--only", "tests", TESTS=f"[  FAILED  ] A.b\n{PASSED}"), 1)
        self.assertEqual(self.verdicts["tests"], "FAIL")

    def test_no_test_may_be_skipped_unless_the_device_is_too_old(self):
        skipped = f"{PASSED}\n[  SKIPPED ] 1 test."
        self.assertEqual(self.check("--only", "tests,memcheck", TESTS=f"no CUDA device\n{skipped}"), 1)
        self.assertEqual(self.verdicts["tests"], "FAIL")
        self.assertEqual(self.verdicts["memcheck"], "FAIL")
        old = "needs a device of compute capability 8.0 or later"
        self.assertEqual(self.check("--only", "tests", TESTS=f"{old}\n{skipped}"), 0, self.said)

    def test_a_tool_that_cannot_work_here_is_not_a_failure(self):
        self.assertEqual(self.check("--only", "memcheck,bench-bytes", TESTS="Device not supported",
                                    TESTS_EXIT="1", NCU="LibraryNotLoaded"), 0, self.said)
        self.assertEqual(self.verdicts["memcheck"], "NOT RUN")
        self.assertEqual(self.verdicts["bench-bytes"], "NOT RUN")
        self.assertRegex(self.last, r"^all \d+ PASS 2 of 4 stages NOT RUN$")

    def test_the_profiler_sees_the_bytes_but_not_our_libraries_and_leaves_the_clocks(self):
        def seen(gigabytes):
            return ('"Metric Name","Metric Value"\n' +
                    f'"dram__bytes.sum","{round(1e9 * gigabytes):,}"\n' * 2)
        self.assertEqual(self.check("--only", "bench-bytes", LD_LIBRARY_PATH="/of/others",
                                    NCU=seen(5.4)), 0, self.said)
        log = self.log("bench-bytes")
        self.assertIn("path=/of/others\n", log)
        self.assertIn(f"env LD_LIBRARY_PATH={self.bundle}/lib:/of/others", log)
        self.assertIn("--clock-control none --cache-control none", log)
        self.assertEqual(self.check("--only", "bench-bytes", NCU=seen(5.5)), 1)

    def test_the_budget_ends_a_stage_and_leaves_out_the_rest(self):
        self.assertEqual(self.check("--only", "tests,memcheck", "--budget", "5", TESTS_TAKE="60"), 0)
        self.assertEqual(self.verdicts["tests"], "NOT RUN")
        self.assertEqual(self.verdicts["memcheck"], "NOT RUN")
        self.assertIn("the budget of 5 s is used up", self.said)

    def test_where_nothing_ran_nothing_has_passed(self):
        # What bash counts from.
        self.assertEqual(self.check("--only", "tests", "--budget", "5", SECONDS="5"), 0, self.said)
        self.assertEqual(set(self.verdicts.values()), {"NOT RUN"})
        self.assertRegex(self.last, r"^all \d+ NOT RUN 3 of 3 stages NOT RUN$")

    def test_what_failed_before_the_budget_ended_has_failed(self):
        self.assertEqual(self.check("--only", "tests", "--budget", "5", TESTS_TAKE="60",
                                    TESTS="[  FAILED  ] A.b"), 1)
        self.assertEqual(self.verdicts["tests"], "FAIL")

    def test_figures_of_an_earlier_run_are_not_used(self):
        self.out.mkdir()
        (self.out / "peer-update.json").write_text("{}")
        (self.out / "cache").mkdir()
        (self.out / "cache/plans").write_text("")
        self.assertEqual(self.check("--only", "bench-update"), 0, self.said)
        self.assertNotIn("--peers", self.log("bench-update"))
        self.assertFalse((self.out / "cache/plans").exists())

    def test_peers_that_fail_in_part_are_still_printed_beside_ours(self):
        self.assertEqual(self.check("--only", "peers,bench-update", PEERS_EXIT="1"), 1)
        self.assertEqual(self.verdicts["peers"], "FAIL")
        self.assertEqual(self.log("peers").count("--device cuda\n"), 2)  # not what else there may be
        self.assertIn(f"--peers {self.out}/peer-update.json", self.log("bench-update"))

    def test_steps_are_held_against_their_goals(self):
        self.put("bin/preheat", STEPS)
        self.assertEqual(self.check("--only", "peers,bench-step"), 0, self.said)
        for goal in ("fp32, goal 1.2 times PyTorch's graph: small-cnn-128-fp32 1.15 missed, "
                     "small-cnn-1024-fp32 not known, resnet20-128-fp32 1.15 missed",
                     "tf32, goal 1.2 times PyTorch's graph: small-cnn-128-tf32 1.25 met, "
                     "small-cnn-1024-tf32 not known, resnet20-128-tf32 1.25 met",
                     "compiled: small-cnn-128-bf16 not known, small-cnn-1024-bf16 not known",
                     "of the fastest: small-cnn-128-bf16 1.10 met, resnet20-128-bf16 1.30 missed"):
            self.assertIn(goal, self.said)
        log = self.log("bench-step")
        self.assertEqual(log.count("train.deterministic=false"), 2)
        self.assertEqual(log.count("train.precision=tf32"), 3)
        self.assertEqual(log.count("data.batch_size=512"), 1)
        self.assertEqual(log.count(f"--peers {self.out}/peer-step.json"), log.count("bench step"))

    def repeat(self, first, second):
        """bench-repeat with these medians of an empty kernel and of an update."""
        for turn, medians in ((1, first), (2, second)):
            rows = [{"variant": name, "how": "graph", "cold": False, "us": us, "least_us": us,
                     "largest_us": us} for name, us in zip(("empty kernel", "fused"), medians)]
            self.put(f"repeat-{turn}.json", json.dumps({"rows": rows}))
        self.put("bin/preheat", f"""#!/bin/bash
{FAKES["bin/preheat"]}
file="${{@: -1}}"  # of --json
[ "$1" = info ] || cp "{self.bundle}/${{file##*/}}" "$file"
""")
        return self.check("--only", "bench-repeat")

    def test_a_bench_repeats_within_its_spread_and_what_the_timer_resolves(self):
        self.assertEqual(self.repeat((0.86, 100), (0.93, 101)), 0, self.said)
        self.assertEqual(self.repeat((0.86, 100), (0.86, 103)), 1)

    def test_an_archive_has_the_logs(self):
        archive = self.out.parent / "logs.tar.gz"
        self.assertEqual(self.check("--only", "tests", "--archive", archive), 0, self.said)
        with tarfile.open(archive) as packed:
            names = packed.getnames()
        self.assertIn("./summary.txt", names)
        self.assertIn("./tests.log", names)
        self.assertNotIn("./cache", names)

    def test_an_archive_may_be_in_the_folder_that_it_packs(self):
        for archive in (self.out / "logs.tar.gz", self.out / "new" / "logs.tar.gz"):
            for _ in range(5):  # tar notices mostly, not always
                self.assertEqual(self.check("--only", "tests", "--archive", archive), 0, self.said)
            with tarfile.open(archive) as packed:
                self.assertIn("./tests.log", packed.getnames())

    @unittest.skipIf(os.path.exists("/dev/nvidiactl"), "there is a GPU")
    def test_without_a_device_nothing_runs(self):
        (self.bundle / "tools/nvidia-smi").unlink()
        self.assertEqual(self.check("--only", "tests", CUDA="no usable CUDA device"), 1)
        self.assertEqual(self.verdicts, {"environment": "PASS", "machine": "FAIL", "tests": "NOT RUN"})
        self.assertRegex(self.last, r"^all \d+ FAIL 1 of 3 stages NOT RUN$")

    def test_wrong_usage_is_code_2(self):
        for arguments in (("--only", "nothing"), ("--budget", "soon"), ("--budget", "0"), ("--archive",)):
            self.assertEqual(self.check(*arguments), 2, arguments)


class PeersFiles(unittest.TestCase):
    def test_every_row_is_in_the_file_at_once_also_one_that_failed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "peer.json"
            figures = Figures(str(path), device="GPU")
            error, us = figures.measured("a", lambda: 2.5)
            figures.add({"us": us, **error})
            self.assertEqual(json.loads(path.read_text()), {"device": "GPU", "rows": [{"us": 2.5}]})
            self.assertFalse(figures.failed)
            with contextlib.redirect_stderr(io.StringIO()) as said:
                error, us = figures.measured("b", lambda: [].pop())
            figures.add({"us": us, **error})
            self.assertEqual(json.loads(path.read_text())["rows"],
                             [{"us": 2.5}, {"us": None, "error": "pop from empty list"}])
            self.assertTrue(figures.failed)
            self.assertEqual(said.getvalue(), "b: pop from empty list\n")
            self.assertEqual(os.listdir(folder), ["peer.json"])

    def test_what_this_version_does_not_have_is_missing_and_no_failure(self):
        def fused():
            raise Missing("PyTorch 1.13 has no fused SGD")
        figures = Figures(None, device="CPU")
        with contextlib.redirect_stderr(io.StringIO()) as told:
            reason, us = figures.measured("fused", fused)
        self.assertEqual((reason, us), ({"missing": "PyTorch 1.13 has no fused SGD"}, None))
        self.assertFalse(figures.failed)
        self.assertEqual(told.getvalue(), "")
        self.assertEqual(said({"us": us, **reason}), "missing: PyTorch 1.13 has no fused SGD")
        self.assertEqual(said({"us": None, "error": "out of memory"}), "failed")


if __name__ == "__main__":
    unittest.main()
