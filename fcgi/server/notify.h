/* notify: reports the master's state to the service manager, with the protocol of sd_notify(3). A start or a
 * reload is complete once all workers accept requests.
 *
 * Without a service manager (no NOTIFY_SOCKET in the environment) every call does nothing. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

#include "server/workers.h"

struct notify {
    int fd; /* -1: there is no service manager */
    struct sockaddr_un address;
    socklen_t address_len;
    int64_t watchdog_ms; /* notify_alive is expected at least this often; 0: not at all */
    enum { STARTING, RUNNING, RELOADING } phase; /* as last reported */
};

/* Reads the environment. */
void notify_init(struct notify *notify);
void notify_done(struct notify *notify);

/* The state of a worker has changed; `n_wanted` workers should be ready. */
void notify_workers(struct notify *notify, const struct workers *workers, int n_wanted);

/* A reload begins; a reload or the start has failed because of `why`. */
void notify_reloading(struct notify *notify);
void notify_refused(struct notify *notify, const char *why);

/* The master is stopping and will exit within that time. */
void notify_stopping(const struct notify *notify, int64_t within_ms);

void notify_alive(const struct notify *notify);

#endif
