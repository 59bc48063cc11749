/* notify: tells the service manager how the service does, in the datagrams of systemd's sd_notify(3).
 *
 * Without a manager (no NOTIFY_SOCKET in the environment) every call does nothing. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

#include "lib/util.h"

struct notify {
    int fd; /* -1: nobody is to be told */
    struct sockaddr_un address;
    socklen_t address_len;
    char *name;          /* of the socket, as the environment had it; NULL: it had none */
    int64_t watchdog_ms; /* notify_alive is wanted at least this often; 0: not at all */
};

/* Reads the environment, and takes out of it what is for this process alone. */
void notify_init(struct notify *notify);
void notify_done(struct notify *notify);

/* Puts back into the environment what the next program is to find there. */
void notify_hand_over(const struct notify *notify);

/* Takes it out again. */
void notify_take_back(void);

/* `status` is one line for people. */
void notify_ready(const struct notify *notify, const char *status);
void notify_status(const struct notify *notify, const char *status);

/* A reload begins; it ends with notify_ready, whatever came of it. */
void notify_reloading(const struct notify *notify);

/* The end has begun and takes so long at most. */
void notify_stopping(const struct notify *notify, int64_t within_ms);

void notify_alive(const struct notify *notify);

#endif
