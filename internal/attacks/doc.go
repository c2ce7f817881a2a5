// Package attacks replays what has gone wrong in gateways like this one against a running Gatehouse, over its real sockets.
//
// It holds tests only. The name of each test begins with the case that it replays (LG: login and credentials; EN: finding out who
// exists; RL: address buckets; LK: lockout; TP: codes; SE: sessions and tokens; WB: pages, forms and redirects; PX: the wire and
// the app behind it; AD: administration; AU: the log). A status code alone proves little, so behind every case stand the same
// oracles: what reached the app did so with a live session; no more passwords were verified than the case allows; the audit log
// holds every decision and nothing that is secret; no canary of a guess is in the data folder or the output; nothing panicked.
//
// GATEHOUSE_PROVE=1 runs the full counts, without it a run takes less than a minute.
package attacks
