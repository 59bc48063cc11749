/* panel: the socket at which the operator asks the master (status.h). */
#ifndef PANEL_H
#define PANEL_H

#include "config/conf.h"
#include "server/sockets.h"
#include "server/status.h"

struct panel;

struct panel_parts {
    uv_loop_t *loop;         /* (ref) */
    struct sockets *sockets; /* (ref) */
    /* How things stand at the moment. */
    void (*look)(void *ctx, struct health *ret_health);
    void *ctx;
};

/* Opens "status.sock" where the configuration says; NULL with *ret_error (allocated). */
struct panel *panel_open(struct panel_parts parts, const struct conf *conf, char **ret_error);

/* The socket's file goes; its handles when the loop has run their closing callbacks. NULL is allowed. */
void panel_close(struct panel *panel);

#endif
