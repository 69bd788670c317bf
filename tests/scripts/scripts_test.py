#!/usr/bin/env python3
"""scripts/setup.sh, test.sh and demo.sh, and CMake, with stand-ins for the tools that they call.

scripts_test.py SCRIPTS
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "scripts")


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name) / "a folder"
        self.put("called", "")

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def tool(self, name, text=""):
        called = f'echo "${{0##*/}} $*" >>"{self.root}/called"'
        self.put(name, f"#!/bin/bash\n{called}\n{text}\n").chmod(0o755)

    def environment(self):
        """In which the stand-ins are found first."""
        return {**os.environ, "PATH": f"{self.root}/tools:{os.environ['PATH']}"}

    def run_script(self, name, *arguments, folder=None):
        """The exit code; `called` has the calls of the tools."""
        (self.root / "scripts").mkdir(exist_ok=True)
        shutil.copy(SCRIPTS / name, self.root / "scripts")
        result = subprocess.run(
            [self.root / "scripts" / name, *arguments],
            env=self.environment(),
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.said = result.stdout + result.stderr
        self.called = (self.root / "called").read_text()
        return result.returncode

    def test_a_package_is_there_if_it_is_for_one_architecture(self):
        for tool in ("apt-get", "sudo"):
            self.tool(f"tools/{tool}")
        for states in ("installed", "installed\\ninstalled", "not-installed\\ninstalled"):
            self.tool("tools/dpkg-query", f"printf '{states}\\n'")
            self.assertEqual(self.run_script("setup.sh"), 0, self.said)
            self.assertEqual(self.said, "setup: nothing is missing\n", states)
        for states in ("printf 'not-installed\\n'", "printf 'half-installed\\n'", "exit 1"):
            self.tool("tools/dpkg-query", states)
            self.assertEqual(self.run_script("setup.sh"), 0, self.said)
            self.assertIn("setup: installing g++ cmake", self.said, states)
        self.assertIn("apt-get install -q -y --no-install-recommends g++ cmake", self.called)

    def test_what_is_not_built_is_not_linted(self):
        for tool in ("chromium", "clang-format", "clang-tidy"):
            self.tool(f"tools/{tool}")
        self.tool("tools/ctest", "echo 100% tests passed")
        self.tool("scripts/build.sh")
        self.put("src/main.cpp", "")
        self.put("src/backend/cuda/program.cpp", "")
        self.put("tests/a_test.cpp", "")
        for defined, lints_cuda in (("-DPREHEAT_HAS_CUDA", True), ("", False)):
            self.put("called", "")
            self.put("build/release/compile_commands.json", f'[{{"command": "c++ {defined}"}}]')
            self.assertEqual(self.run_script("test.sh"), 0, self.said)
            self.assertIn("clang-tidy --quiet -p build/release src/main.cpp\n", self.called)
            self.assertEqual("src/backend/cuda/program.cpp\n" in self.called, lints_cuda)
            self.assertIn("100% tests passed", self.said)

    def test_the_demo_runs_in_the_callers_folder(self):
        self.tool("scripts/build.sh")
        self.tool("build/release/preheat", f'pwd >>"{self.root}/called"')
        folder = self.put("elsewhere/images", "").parent.resolve()
        self.assertEqual(self.run_script("demo.sh", "--set", "data.dir=images", "--out", "a run",
                                         folder=folder), 0, self.said)
        self.assertEqual(self.called, "build.sh preheat\n"
                         f"preheat compare {self.root.resolve()}/configs/nan-without-warmup.yaml "
                         f"--device cpu --set data.dir=images --out a run\n{folder}\n")

    def test_an_nvcc_that_does_not_work_is_named_and_only_on_needs_it(self):
        self.tool("tools/nvcc", '[ "$1" != --version ] || { echo "tools, release 11.8, V11.8.89"; exit; }\n'
                                'echo "host_config.h:1: error: unsupported GNU version!" >&2; exit 1')
        environment = self.environment()
        for name in ("CUDACXX", "CUDA_PATH"):
            environment.pop(name, None)
        for cuda, code, says in (("AUTO", 0, "Building without CUDA code, which"),
                                 ("ON", 1, "PREHEAT_CUDA=ON")):
            result = subprocess.run(
                ["cmake", "-G", "Ninja", "-S", SCRIPTS.parent, "-B", self.root / "build",
                 f"-DPREHEAT_CUDA={cuda}", "-DPREHEAT_TESTS=OFF"],
                env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            said = " ".join((result.stdout + result.stderr).split())
            self.assertEqual(result.returncode, code, said)
            self.assertIn(f"{says} needs CUDA 12.8 or later; {self.root}/tools/nvcc (release 11.8) "
                          "does not work: error: unsupported GNU version!", said)


if __name__ == "__main__":
    unittest.main()
