/* panel: see panel.h. */
#include "server/panel.h"

#include <stdlib.h>

enum { CONNECTIONS_MAX = 256 };

struct panel {
    struct panel_parts parts;
    char *path;
    struct fcgi_server *server;
};

static void on_request(void *ctx, struct fcgi_request *client)
{
    const struct panel *panel = ctx;
    struct health health = {0};
    panel->parts.look(panel->parts.ctx, &health);
    status_serve(&health, client);
}

static void on_drained(void *ctx)
{
    (void)ctx;
}

struct panel *panel_open(struct panel_parts parts, const struct conf *conf, char **ret_error)
{
    char *path = xasprintf("%s/status.sock", conf->socket_dir);
    int fd = sockets_listen(parts.sockets, path, conf->socket_group, ret_error);
    if (fd < 0) {
        free(path);
        return NULL;
    }
    struct panel *panel = xcalloc(1, sizeof(*panel));
    *panel = (struct panel){.parts = parts, .path = path};
    panel->server =
        fcgi_listen(parts.loop, fd, CONNECTIONS_MAX,
                    (struct fcgi_handlers){.on_request = on_request, .on_drained = on_drained, .ctx = panel});
    return panel;
}

void panel_close(struct panel *panel)
{
    if (panel == NULL)
        return;
    sockets_remove(panel->parts.sockets, panel->path);
    fcgi_free(panel->server);
    free(panel->path);
    free(panel);
}
