"""Confines itself as asked by the JSON on its command line, then becomes the command given there.

Used for compilers, which need to start processes of their own and so cannot run inside a worker.
"""

import json
import os
import resource
import sys


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import confine

    setup = json.loads(sys.argv[1])
    os.chdir(setup["directory"])
    for name, value in setup["limits"].items():
        limit = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # the CPU limit's signal must differ from a kill by others
        resource.setrlimit(limit, (value - 1 if name == "CPU" else value, value))
    if setup["level"] != "limited":
        confine.drop_capabilities()
        confine.no_new_privs()
        abi = confine.landlock_abi()
        if abi:
            rules = [(path, confine.READ | confine.EXECUTE) for path in setup["readable"]]
            rules.append(("/dev/null", confine.READ_FILE | confine.WRITE_FILE))
            rules.append((setup["directory"], confine.BUILD if setup["directories"] else confine.SCRATCH))
            confine.landlock_restrict(confine.landlock_ruleset(rules, abi))
        if setup["filter"]:
            confine.Filter(bytes.fromhex(setup["filter"]), ()).load()
    os.execve(setup["command"][0], setup["command"], setup["environment"])


if __name__ == "__main__":
    main()
