"""Level `process`: each plugin in a process of its own that the kernel has sealed.

    host process                              zygote                    worker (one per plugin)
    ProcessLevel ── order ──────────────────> forks ──────────────────> sealing, then the plugin
    Sealed  <── channel: frames over a socket pair, descriptors with SCM_RIGHTS ──> Worker
       └─ Broker ── handlers                                 Line ── proxies of the capabilities

Frames and their order: `frames`, `messages`, `protocol`. Moving them: `channel`. Host side: `process`, `broker`,
`launching`, `reserve`, `zygote_client`, `fresh`, `output`, `watch`. Worker side: `zygote`, `fresh_worker`, `worker`,
`sealing`, `rehearsal`, `line`.
"""
