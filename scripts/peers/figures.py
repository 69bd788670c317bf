"""What a peer has measured, as a JSON file that is complete after every row."""

import json
import os
import sys


class Figures:
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
        """({}, the figure), or ({"error": the reason}, None); the other rows are still worth it."""
        try:
            return {}, measure()
        except Exception as error:
            self.failed = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"{what}: {reason}", file=sys.stderr, flush=True)
            return {"error": reason}, None
