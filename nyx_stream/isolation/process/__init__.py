"""Level `process`: makes the worker of each plugin as a process on this machine, forked from a warm one.

Theory of operation
    `isolation.remote` drives a worker once it has a process and a channel to it. This package makes both.

        host process                        zygote, one per host              worker, one per plugin
        ProcessBackend
        └─ WarmPool ── WorkerSlot ──────────────────────────────────────────► channel, stdout, stderr
           └─ ZygoteClient ─── packets ───► Zygote ────── fork ─────────────► remote.worker.main

    Zygote. Starting an interpreter and importing the framework takes half a second; forking a process that has done so
    takes milliseconds, and the two share their memory pages. So each host starts one such process, the zygote, when it
    first needs a worker. It is single-threaded and never runs a plugin's code. It forks, kills and reaps workers as the
    host asks; being their parent, it can't confuse a reused pid with a worker. Workers die with the zygote
    (PR_SET_PDEATHSIG), and the zygote with its host (the same, and the end of their socket). If the zygote dies, its
    workers end and the client starts another one for the next worker.

    Copy-on-write. A page stays shared until someone writes to it, and Python writes even when it only reads (reference
    counts, specialised bytecode). So the zygote runs the whole start of a worker with an empty plugin first
    (`bootstrap.warm_up`), which compiles and caches what can be, and then freezes the garbage collector's lists.

    Warm pool. A fork, sealing, and copying the pages that are written still add up to most of a plugin's start. So the
    pool keeps one worker ahead: forked, sealed as far as possible without its order (`remote.worker.seal`), and warmed
    up again to own copies of its pages. `WarmPool.acquire` returns it if it is still alive, and the next one is made
    shortly after the start has finished. The order is written to the channel before the process exists, so a worker
    that isn't made ahead finds it there and skips the warm-up.

    Where a fork without an exec isn't safe (macOS), `spawn.FreshWorkers` starts an interpreter for each worker instead,
    and nothing is made ahead.
"""
