"""Every limit of the wire, by name. A limit that can be configured has its default here."""

#: Bytes of one mebibyte; MindSpore Serving multiplies `max_msg_mb_size` by this.
MIB = 1 << 20

#: Default and range of `max_msg_mb_size` (MindSpore Serving FAQ and API: 100, 1 to 512).
MESSAGE_MB_DEFAULT = 100
MESSAGE_MB_MIN = 1
MESSAGE_MB_MAX = 512

#: A client's own cap on one message, both ways (MindSpore Serving client: 512 MiB).
CLIENT_MESSAGE_BYTES_MAX = MESSAGE_MB_MAX * MIB

#: All body frames of one request or reply together. Every hop behind the doors accepts what the
#: largest door accepts, plus room for the native meta frame.
BODY_BYTES_MAX = MESSAGE_MB_MAX * MIB + MIB

#: Tensors of at least this many bytes travel as a frame of their own (pyzmq's copy_threshold).
TENSOR_INLINE_BYTES_MAX = 64 * 1024

#: Body frames of one request or reply; the head counts them in one byte.
BODY_FRAMES_MAX = 255

#: Bytes of the service key `servable/version`; the head counts them in one byte.
SERVICE_KEY_BYTES_MAX = 223

#: Bytes of a method name behind the service key.
METHOD_BYTES_MAX = 255

#: The instance count saturates here: it is for load accounting, the body has the truth.
INSTANCE_COUNT_MAX = 65_535

#: Body frame 0 of a request of an MDP client: the broker looks over it for the keys that are its
#: own, up to 4 ms for each MiB. Large tensors travel in frames of their own.
MDP_META_BYTES_MAX = 16 * MIB

#: Dimensions of one tensor (numpy's own limit is 64; 32 was numpy 1's).
TENSOR_DIMENSIONS_MAX = 32

#: Requests in the broker at once (MindSpore Serving `max_enqueued_requests`, default 10000).
REQUESTS_MAX_DEFAULT = 10_000

#: Model calls of extra workers that the broker accepts beyond `requests_max`, and while it drains:
#: without them, requests that it accepted before could not be finished.
CALLS_RESERVE = 1_024

#: Body bytes held by the broker for queued and running requests together.
REQUEST_BYTES_MAX_DEFAULT = 4 * 1024 * MIB

#: Bytes of replies that one client may leave unread: of the broker, or of the gRPC door, where a
#: connection is a client. Further replies become failures (`unread_bytes_full`) until it reads.
UNREAD_BYTES_MAX = 1024 * MIB

#: Messages with replies, each of less than `TENSOR_INLINE_BYTES_MAX`, that a client of the broker
#: may leave unread besides; further ones are dropped and counted.
UNREAD_MESSAGES_MAX = 10_000

#: Calls that one gRPC connection may have open at once; client libraries let further ones wait, so
#: that a burst meets the broker's own limit, and not one that clients do not know.
CONNECTION_CALLS_MAX = 2 * REQUESTS_MAX_DEFAULT

#: A request that names no budget gets this one, so that nothing waits for ever.
BUDGET_MS_DEFAULT = 300_000

#: The largest budget a client may ask for; larger ones are cut to it (24 hours).
BUDGET_MS_MAX = 86_400_000

#: Executions of one request: a request whose worker died is sent once more, then it fails.
ATTEMPTS_MAX = 2

#: How long a request that killed its workers is refused when it comes again.
QUARANTINE_MS = 60_000

#: Requests that are refused so at once; the oldest are forgotten for others.
QUARANTINED_MAX = 1_024

#: Bytes of an idempotency key; a UUID has 16, or 36 as text.
KEY_BYTES_MAX = 64

#: How long the answer to a request with a key is remembered, to be given again: longer than clients
#: wait between two attempts, and than a gateway or a network is away.
ANSWERS_MS = 60_000

#: Bytes of all answers that are remembered; the oldest are forgotten for others.
ANSWERS_BYTES_MAX = 64 * MIB

#: Clients that the broker tells when it drains; who asked first is forgotten for others.
WATCHERS_MAX = 1_024

#: Requests that one worker may hold at once, whatever it announces in READY.
CREDIT_MAX = 1024

#: Heartbeats: the broker tells workers these two in WELCOME, so both ends agree (7/MDP asks the
#: operator to set equal rates). Dead after `HEARTBEAT_LIVENESS` silent intervals.
HEARTBEAT_INTERVAL_MS = 1_000
HEARTBEAT_LIVENESS = 10

#: A service is not ready when its workers have held requests for so long without an answer. Probes
#: of orchestrators come every few seconds; Triton stayed ready for an hour while nothing moved.
READY_MS = 5_000

#: A service whose last worker is gone is remembered this long; its requests wait for a restart.
SERVICE_GRACE_MS = 60_000

#: Services whose numbers the broker keeps, whether they still have workers or not; the oldest are
#: forgotten for others.
PAGES_MAX = 1_024

#: Series of numbers in one heartbeat of a worker, and kept of one service. Prometheus' own advice
#: is to stay below some hundreds of one name.
WORKER_SERIES_MAX = 1_024

#: Bounds of one of these series.
BOUNDS_MAX = 64

#: Ranks of one group, and items of any list in a message of the group.
GROUP_RANKS_MAX = 4096

#: Worker and agents of a group show that they live once in this time.
GROUP_HEARTBEAT_INTERVAL_MS = 1_000

#: A rank, a launcher or a worker that is silent for so many intervals has left the group
#: (MindSpore Serving notes 20 unanswered pings in its log).
GROUP_LIVENESS = 20

#: A rank answers a batch within this time, or the group is restarted (MindSpore Serving: 10 s).
GROUP_RESULT_WAIT_MS = 10_000

#: The same for the first batch of its shapes, for which every rank compiles its graph.
GROUP_COMPILE_WAIT_MS = 600_000

#: `sun_path` of a unix socket less its final zero byte (unix(7)).
UNIX_PATH_BYTES_MAX = 107
