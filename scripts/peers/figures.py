"""What a peer has measured, as a JSON file that is complete after every row."""

import json
import os
import sys


class Missing(Exception):
    """This version of PyTorch, or this device, does not have what was to be measured."""


class Figures:
    """`facts` are the file's other keys. Its "modes" are all that the device allows: a reader can then
    name those that were not measured."""

    def __init__(self, file, **facts):
        self.file, self.contents, self.failed = file, {**facts, "rows": []}, False

    def add(self, row):
        self.contents["rows"].append(row)
        if not self.file:
            return
        part = f"{self.file}.part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(self.contents, file, indent=2)
            file.write("\n")
        os.replace(part, self.file)

    def measured(self, what, measure):
        """({}, the figure); ({"missing": the reason}, None) if it cannot be had here, which is no
        failure; or ({"error": the reason}, None). The other rows are still worth it."""
        try:
            return {}, measure()
        except Missing as missing:
            return {"missing": str(missing)}, None
        except Exception as error:
            self.failed = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"{what}: {reason}", file=sys.stderr, flush=True)
            return {"error": reason}, None


def said(row):
    """What a table says of a row without a figure."""
    return f"missing: {row['missing']}" if "missing" in row else "failed"
