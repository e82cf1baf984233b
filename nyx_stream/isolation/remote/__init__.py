"""A plugin in another process, however that process was made.

    host process                                              worker, one per plugin
    RemoteBackend, one per host                               main.Worker
    └─ RemotePlugin, one per plugin                           ├─ seal         seals the process by its order
       ├─ Handshake      order, report, READY                 ├─ ExportedCalls  runs calls and streams
       ├─ RemoteCalls    calls and streams                    ├─ RemoteLog      the plugin's logger
       ├─ Broker         handlers of the capabilities         └─ RpcClient      stubs of the capabilities
       ├─ WorkerLog      log records, output                        │
       └─ Channel  ◄─── frames over a socketpair, descriptors by SCM_RIGHTS ───► Channel

Both ends share `wire`: the format of frames (`frames`), their order (`protocol`), their bodies (`messages`, `types`),
and what carries them (`channel`, `body_stream`). `host` and `worker` never import each other.

An isolation level provides a `WorkerLauncher` (`host.backend`), which returns a socket, two pipes and a process. In
that process `worker.main.main` must run with the other end of the socket.
"""
