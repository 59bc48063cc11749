/* status_server: the master's FastCGI socket "status.sock", with pages for the operator:
 *
 *     /healthz  the master runs
 *     /readyz   200 while at least one worker accepts requests; "why" has the reasons if it is degraded
 *     /metrics  for Prometheus
 *     /status   everything on one page of indented JSON */
#ifndef STATUS_SERVER_H
#define STATUS_SERVER_H

#include "server/sockets.h"
#include "server/workers.h"

struct status_server;

/* Opens the socket where the configuration says; NULL with *ret_error (allocated). All but the last are
 * (ref). */
struct status_server *status_server_open(uv_loop_t *loop, struct sockets *sockets,
                                         const struct workers *workers, const struct conf *conf,
                                         char **ret_error);

/* Another configuration, (ref), is in force from here on. */
void status_server_set_conf(struct status_server *server, const struct conf *conf);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void status_server_close(struct status_server *server);

#endif
