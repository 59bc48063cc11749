/* health: how the processes stand at one moment, and what is not as it should be. */
#ifndef HEALTH_H
#define HEALTH_H

#include "config/conf.h"
#include "lib/shm_counters.h"

enum { HEALTH_WORKERS = 256 };

enum worker_state { WORKER_STARTING, WORKER_READY_TO_SERVE, WORKER_HUNG, WORKER_LEAVING };

struct worker_health {
    int index; /* of its socket */
    int pid;
    int slot; /* of its counters */
    enum worker_state state;
    int64_t uptime_ms;
};

struct health {
    const struct conf *conf; /* (ref) the one in force */
    int64_t uptime_ms;       /* of the master */
    int workers_ready;       /* that take requests */
    int workers_hung;        /* whose loop stands still */
    size_t n_workers;
    struct worker_health workers[HEALTH_WORKERS];
};

/* Says what is wrong, each in a few words, and that requests are answered all the same: Redis or an upstream that is
 * away, a key that is set aside, ...; `total` has the sums of what is counted. How many things that were. */
int health_troubles(const struct health *health, const struct shm_counters *total,
                    void (*say)(void *ctx, const char *trouble), void *ctx);

#endif
